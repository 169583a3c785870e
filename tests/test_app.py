"""The order of the end, and what health's watchers are told while models load."""

import asyncio
from types import SimpleNamespace

import pytest

from batchmill.app import App
from batchmill.config import ServerConfig


class Server:
    """Signalled once; says how it is drained. Its cold calls are answered after some looks."""

    def __init__(self, open_calls):
        self.said = []
        self.bridge = self
        self.looks = iter(open_calls)
        self.left = 0

    @property
    def open_calls(self):
        self.left = next(self.looks, self.left)
        return self.left

    def first_signal(self):
        return 15

    def signal_count(self):
        return 1

    def idle(self):
        return True

    def stats(self):
        return {"in_flight": 0}

    def drain(self, final=False):
        self.said.append(("final" if final else "notice", self.left))


class Dispatcher:
    def drain(self):
        pass

    async def stop(self):
        pass


def drained(tmp_path, open_calls, **settings):
    app = App(tmp_path, ServerConfig(lame_duck_secs=0, **settings))
    app._server = Server(open_calls)
    assert asyncio.run(app._drain(Dispatcher())) == 0
    return app._server.said


def test_the_drain_waits_for_cold_calls(tmp_path):
    assert drained(tmp_path, [3, 2, 1, 0]) == [("notice", 0), ("final", 0)]


def test_the_drain_does_not_wait_longer_than_the_exit_timeout(tmp_path):
    assert drained(tmp_path, [7], exit_timeout_secs=0.05) == [("notice", 0), ("final", 7)]


@pytest.mark.parametrize("ready", [True, False])
def test_watchers_learn_of_models_as_they_come_and_go_and_of_the_server(tmp_path, ready):
    """Each look finds what stands in the list; the last one ends the telling."""
    app, told = App(tmp_path, ServerConfig()), []
    looks = iter([{"a": True}, {"a": True, "b": True, "broken": False}, {"b": False}])

    def look():
        models = next(looks, None)
        if models is None:
            raise asyncio.CancelledError
        app._models = {name: SimpleNamespace(pick=lambda served=served: served or None) for name, served in models.items()}

    class Services:
        def set_whole(self, serving):
            told.append(("whole", serving))
            look()

        def set_models(self, serving, names):
            told.extend((name, serving) for name in names)

    look()
    app._server = SimpleNamespace(ready=lambda: ready)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(app._tell_health(Services()))
    assert told == [("a", True), ("whole", ready), ("b", True), ("whole", ready), ("a", False), ("b", False), ("whole", ready)]
