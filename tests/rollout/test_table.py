"""What a model's entry of the route table says of its fallbacks."""

from types import SimpleNamespace

import pytest

from batchmill.registry.naming import Naming
from batchmill.registry.settings import Fallback, ModelSettings
from batchmill.registry.status import ModelStatus, VersionStatus
from batchmill.rollout.table import entry_of, previous, told


@pytest.mark.parametrize(("before", "ready", "standard", "wanted"), [
    ((), {"1", "2", "10"}, "10", "2"),                                 # the next older one
    ((), {"10"}, "10", ""),
    ((), {"1"}, "", ""),
    (((9000, "1"), (10_000, "3")), {"1", "2", "3"}, "3", "1"),         # who had most of it
    (((9000, "1"), (10_000, "3")), {"2", "3", "4"}, "4", "3"),         # of those that are ready
    (((10_000, "9"),), {"2", "4"}, "4", "2"),
])
def test_which_version_was_before(before, ready, standard, wanted):
    assert previous(Naming(fallback=before), ready, standard) == wanted


@pytest.mark.parametrize(("step", "wanted"), [
    (Fallback("3"), "version 3"), (Fallback("previous"), "version 7"), (Fallback(model="other"), "model other"), (Fallback(constant=(("y", "FP32", (1, 1), "000080bf"),)), "constant"), (Fallback(model='a"b\\cé\n'), "model a?b?c??"),
])
def test_what_an_answer_says_may_stand_in_a_header_and_in_json(step, wanted):
    assert told(step, "7") == wanted


def test_an_entry_without_a_route_has_its_fallbacks():
    model = ModelStatus("m", ModelSettings(fallbacks=(Fallback("previous", when=("error", "invalid")), Fallback(model="n"))))
    for number in ("1", "2"):
        model.add(VersionStatus(number, "READY", served=SimpleNamespace(version=number)))
    assert entry_of(model).fallbacks == [(("unavailable", "error", "invalid"), "1", "", [], "version 1"), (("unavailable", "error"), "", "n", [], "model n")]


MOST_OF_1, ALL_OF_3 = ((9000, "1"), (10_000, "2")), ((10_000, "3"),)


@pytest.mark.parametrize(("states", "naming", "wanted"), [
    ({"1": "READY", "2": "READY", "3": "READY"}, Naming(shares=MOST_OF_1, fallback=ALL_OF_3), ("1", MOST_OF_1)),
    ({"1": "LOADING", "2": "READY", "3": "READY"}, Naming(shares=MOST_OF_1, fallback=ALL_OF_3), (None, ())),  # a start: a tenth does not become all
    ({"1": "FAILED", "2": "READY", "3": "READY"}, Naming(shares=MOST_OF_1, fallback=ALL_OF_3), ("2", ())),
    ({"1": "READY", "2": "LOADING"}, Naming(shares=MOST_OF_1), ("1", ())),
    ({"1": "LOADING", "2": "LOADING", "3": "READY"}, Naming(shares=MOST_OF_1, fallback=ALL_OF_3), (None, ())),  # 3 may be what was rolled back
    ({"1": "FAILED", "2": "FAILED", "3": "READY"}, Naming(shares=MOST_OF_1, fallback=ALL_OF_3), (None, ())),
    ({"1": "LOADING", "3": "READY"}, Naming(shares=((10_000, "1"),), fallback=ALL_OF_3, awaited=True), ("3", ())),  # until it has come
    ({"1": "READY", "3": "READY"}, Naming(shares=((10_000, "1"),), fallback=ALL_OF_3, awaited=True), ("1", ())),
])
def test_who_has_the_traffic_while_versions_come_and_fail(states, naming, wanted):
    model = ModelStatus("m", naming=naming)
    for number, state in states.items():
        model.add(VersionStatus(number, state, served=SimpleNamespace(version=number) if state == "READY" else None))
    entry = entry_of(model)
    assert (entry.standard and entry.standard.version, tuple(entry.shares)) == wanted
