import pytest

from batchmill.registry.naming import Naming
from batchmill.registry.status import ModelStatus, VersionStatus


def model(led, **states):
    versions = {name[1:]: VersionStatus(name[1:], state) for name, state in states.items()}
    return ModelStatus("m", versions=versions, naming=Naming(labels={"stable": "2"}), led=led)


@pytest.mark.parametrize(("led", "states", "wanted"), [
    ({}, {"v1": "READY", "v2": "READY"}, "2"),
    ({"stable": "1"}, {"v1": "READY", "v2": "READY"}, "2"),
    ({"stable": "1"}, {"v1": "READY", "v2": "LOADING"}, "1"),
    ({"stable": "1"}, {"v1": "READY", "v2": "FAILED"}, "1"),
    ({"stable": "1"}, {"v1": "READY"}, "1"),
    ({"stable": "1"}, {"v1": "FAILED", "v2": "LOADING"}, "2"),
    ({"stable": "1"}, {"v2": "LOADING"}, "2"),
    ({}, {"v1": "READY", "v2": "LOADING"}, "2"),
    ({"canary": "1"}, {"v1": "READY", "v2": "LOADING"}, "2"),
])
def test_a_label_leads_on_to_where_it_led_while_the_version_that_it_names_is_not_ready(led, states, wanted):
    assert model(led, **states).leads() == {"stable": wanted}
