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
def test_watchers_learn_of_models_as_they_come_and_of_the_server_at_the_end(tmp_path, ready):
    app, told = App(tmp_path, ServerConfig()), []

    def model(served=True):
        return SimpleNamespace(pick=lambda: served or None)

    class Services:
        def set_whole(self, serving):
            told.append(("whole", serving))

        def set_models(self, serving, names):
            told.extend((name, serving) for name in names)
            if "a" in names:
                app._models = {"a": model(), "b": model(), "broken": model(False)}
                app._ready, app._all_loaded = ready, True

    app._models = {"a": model()}
    asyncio.run(app._tell_health(Services()))
    assert told == [("whole", False), ("a", True), ("b", True), ("whole", ready)]
