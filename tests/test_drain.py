"""The order of the end."""

import asyncio

from batchmill.config import ServerConfig
from batchmill.drain import drain


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


def drained(open_calls, **settings):
    server = Server(open_calls)
    asyncio.run(drain(server, Dispatcher(), ServerConfig(lame_duck_secs=0, **settings)))
    return server.said


def test_the_drain_waits_for_cold_calls():
    assert drained([3, 2, 1, 0]) == [("notice", 0), ("final", 0)]


def test_the_drain_does_not_wait_longer_than_the_exit_timeout():
    assert drained([7], exit_timeout_secs=0.05) == [("notice", 0), ("final", 7)]
