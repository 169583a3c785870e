"""What is published, and what waits for it. Seconds of a clock that stands still unless it is set."""

import math
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from batchmill.registry.entry import Entry
from batchmill.registry.publication import PUBLISH_SECS, Publication
from batchmill.registry.status import ModelStatus, VersionStatus


class Told(Publication):
    """Of one model with one version. told: each table's states and whether all was tried, and the versions that were retired."""

    def __init__(self, state="READY"):
        self.now, self.told = 100.0, []
        super().__init__(self.table, lambda version: self.told.append(version.number), lambda: self.now)
        self.version = VersionStatus("1", state, served=object())
        self.entries = {"m": Entry(SimpleNamespace(name="m"), ModelStatus("m", versions={"1": self.version}))}

    def table(self, models, complete):
        self.told.append(([*models["m"].versions], complete))

    def turn(self, complete=True):
        self.publish(self.entries, complete)
        self.answer(self.entries)


def test_a_version_is_retired_after_the_table_that_lacks_it_and_once():
    told = Told()
    told.turn()
    told.let_go(told.entries["m"].status.versions.pop("1"))
    assert told.told == [(["1"], True)]
    told.now += PUBLISH_SECS
    told.turn()
    told.changed, told.now = True, told.now + PUBLISH_SECS
    told.turn()
    assert told.told == [(["1"], True), ([], True), "1", ([], True)]


@pytest.mark.parametrize(("state", "complete", "tables"), [("READY", False, 1), ("LOADING", False, 0), ("LOADING", True, 1)])
def test_the_first_table_waits_for_one_who_can_answer_or_for_the_end_of_the_first_pass(state, complete, tables):
    told = Told(state)
    told.turn(complete)
    assert (len(told.told), told.first.is_set()) == (tables, tables == 1)


def test_tables_are_apart_and_there_is_none_where_nothing_has_changed():
    told = Told()
    told.turn()
    assert told.due() == math.inf
    told.changed = True
    told.turn()
    assert (len(told.told), told.due()) == (1, told.now + PUBLISH_SECS)
    told.now = told.due()
    told.turn()
    told.now += 10
    told.turn()
    assert len(told.told) == 2


def test_a_call_is_answered_once_what_it_did_is_published():
    told, done = Told(), Future()
    told.turn()
    told.changed = True
    told.tell(done)
    told.turn()
    assert not done.done()
    told.now += PUBLISH_SECS
    told.turn()
    assert done.result(0) is None
