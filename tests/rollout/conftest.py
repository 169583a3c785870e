import pytest
from policy_mill import TRAFFIC, Mill

from batchmill.registry import settle, watch
from batchmill.rollout import conductor as conductors
from batchmill.rollout.evidence import Evidence


@pytest.fixture
def mill(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "start", lambda *_: None)
    monkeypatch.setattr(settle, "is_old", lambda _: True)
    monkeypatch.setattr(conductors, "evidence_of", lambda model, old, new: Evidence(
        model.versions[old].served.arm, model.versions[new].served.arm, model.versions[new].served.compared))
    return lambda settings=TRAFFIC, *versions: Mill(tmp_path, settings, *(versions or (1,)))
