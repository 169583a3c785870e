"""Who may change how a model is served, and what the calls answer."""

import hashlib
import json
from concurrent.futures import Future

import pytest

from batchmill.endpoints import rest
from batchmill.endpoints.catalog import Catalog
from batchmill.endpoints.repository import Guard, Repository
from batchmill.errors import BatchmillError, NotFound
from batchmill.registry import tuning
from batchmill.registry.settings import TUNABLE, ModelSettings
from batchmill.registry.status import ModelStatus

from .fakes import Call
from .test_asgi import handled

HERE, KEY = [(b"host", b"localhost")], [(b"authorization", b"Bearer secret")]
KEYED = Guard(hashlib.sha256(b"secret").digest())


class Registry:
    """One model, as the keeper tunes it."""

    def __init__(self, guard=Guard(), *, is_complete=True):  # noqa: B008  (frozen)
        self.models = {"m": ModelStatus("m")}
        self.repository = Repository(None, None, self.tune, guard, None, offered=False)
        self.application = rest.application(Catalog(lambda: self.models, is_complete=lambda: is_complete), None, self.repository)

    def tune(self, name, change):
        done = Future()
        try:
            if name not in self.models:
                raise NotFound(name)
            self.models[name].settings = tuning.in_force(ModelSettings(), change(self.models[name].settings.called))
            done.set_result(None)
        except BatchmillError as error:
            done.set_exception(error)
        return done

    def ask(self, method="GET", body=None, name="m", headers=HERE, peer="ipv4:127.0.0.1:5"):
        call = Call(f"/admin/models/{name}/tuning", method=method, headers=headers, body=b"" if body is None else json.dumps(body).encode())
        call.peer = peer
        handled(self.application, call)
        return call.status, json.loads(call.body_sent)


@pytest.mark.parametrize(("guard", "asked", "status", "text"), [
    (Guard(), {}, 200, ""),
    (Guard(), {"method": "PATCH", "body": {"run_timeout_ms": 5}}, 200, ""),
    (Guard(), {"method": "DELETE"}, 200, ""),
    (Guard(), {"peer": "ipv4:10.0.0.1:5"}, 200, ""),
    (Guard(), {"method": "PATCH", "body": {}, "peer": "ipv4:10.0.0.1:5"}, 403, "--admin-key-file"),
    (Guard(), {"method": "DELETE", "peer": "ipv4:10.0.0.1:5"}, 403, "--admin-key-file"),
    (KEYED, {}, 200, ""),
    (KEYED, {"method": "PATCH", "body": {"run_timeout_ms": 5}, "headers": KEY}, 200, ""),
    (KEYED, {"method": "PATCH", "body": "not even read"}, 401, "--admin-key-file"),
    (KEYED, {"method": "DELETE"}, 401, "--admin-key-file"),
    (Guard(), {"method": "PATCH", "body": [1]}, 400, "no JSON object"),
    (Guard(), {"method": "PATCH", "body": {"run_timeout": 5}}, 400, "did you mean 'run_timeout_ms'?"),
    (Guard(), {"method": "PATCH", "body": {"batching": {"mode": "off"}}}, 400, "no call can set it"),
    (Guard(), {"name": "nobody"}, 404, "unknown model 'nobody'"),
    (Guard(), {"method": "PATCH", "body": {}, "name": "nobody"}, 404, "unknown model 'nobody'"),
    (Guard(), {"method": "POST", "body": {}}, 405, "DELETE"),
])
def test_a_caller_is_let_through_or_told_why_not(guard, asked, status, text):
    got, answer = Registry(guard).ask(**asked)
    assert got == status
    assert text in answer.get("error", "")
    assert (status == 200) == ("tuning" in answer)


def test_what_is_in_force_is_answered_with_where_it_is_from():
    registry = Registry()
    for body, wanted in (({"batching": {"max_batch_size": 4}}, {"value": 4, "from": "call"}), ({"batching": None}, {"value": 64, "from": "default"})):
        patched = registry.ask("PATCH", body)
        assert patched == registry.ask()
        assert patched[1]["model"] == "m"
        assert [*patched[1]["tuning"]] == [*TUNABLE]
        assert patched[1]["tuning"]["batching.max_batch_size"] == wanted
    registry.ask("PATCH", {"run_timeout_ms": 5, "queue.max_rows": 6})
    assert {one["from"] for one in registry.ask("DELETE")[1]["tuning"].values()} == {"default"}


def test_a_model_that_may_yet_be_loaded_is_not_said_to_be_unknown():
    assert Registry(is_complete=False).ask(name="later")[0] == 503
