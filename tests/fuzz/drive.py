"""Feeds mutated connections to the front ends until its time is over: python -m fuzz.drive SEED FIRST_RUN SECONDS PROGRESS_FILE.

The file always holds the number of the run at hand, so that it is known when a sanitizer ends the process.
"""

import mmap
import struct
import sys
import time

from batchmill.core.loopback import Loopback
from fuzz.inputs import case, message

STEPS = (1, 7, 50, 1000, 1 << 20)  # bytes fed at once
LIMITS = {"max_body_bytes": 2000, "max_header_bytes": 1400}  # so that they are met
WATCHED = (b"x-tenant", b"x-region", b"content-type")  # headers that rules ask for


class Server:
    """The rest of the server: answers what the front end hands over, at any time and in any order."""

    def __init__(self, loop, http2, rng):
        self.loop, self.http2, self.rng = loop, http2, rng
        self.ended = set()

    def answer(self, share):
        for number, request in enumerate(self.loop.infers()):
            if request is not None and self.rng.random() < share:
                if self.rng.random() < 0.3:
                    self.loop.refuse(number, b"no\xff")
                else:
                    self.loop.answer(number, message(b"y" * self.rng.choice((0, 10, 100_000))), self.rng.choice((-1, 3)))
        for number in range(len(self.loop.colds())):
            if number not in self.ended and self.rng.random() < share:
                self.answer_cold(number)

    def answer_cold(self, number):
        status, parts = self.rng.choice((200, 200, 204, 304, 404)), [b"z" * self.rng.choice((0, 1, 70_000))] * self.rng.randrange(3)
        headers = self.rng.choice(([], [(b"content-length", b"2")], [(b"a", b"b\r\nc: d")], [(b"connection", b"close")]))
        if self.rng.random() < 0.5:
            self.loop.cold_write(number, status, headers, parts)
        else:
            self.ended.add(number)
            self.loop.cold_answer(number, status, headers, parts, [(b"grpc-status", b"0")] if self.http2 else [])


def play(given):
    """One connection, from its first byte until nothing of it is left."""
    rng, data, at = given.rng, given.data, 0
    loop = Loopback(given.http2, metrics_only=rng.random() < 0.05, watched=WATCHED, **LIMITS)
    server = Server(loop, given.http2, rng)
    if rng.random() < 0.05:
        loop.fill_cold_queue()
    if rng.random() < 0.05:
        loop.set_budget(1000)
    try:
        while at < len(data) and rng.random() < 0.999:
            step = rng.choice(STEPS)
            open_ = loop.feed(data[at:at + step])
            at += step
            server.answer(rng.choice((0, 0, 0.5)))
            if rng.random() < 0.02:
                loop.set_draining()
                if given.http2:
                    loop.drain(rng.random() < 0.5)
            if rng.random() < 0.7:
                loop.sent(rng.choice((10, 1 << 20)))
            if not open_ or (not given.http2 and (loop.paused() or loop.finished())):
                break
        if not given.http2:
            end_http1(loop, rng)
        server.answer(0.5)
        loop.sent()
    except ConnectionError:
        pass
    loop.abandon()
    server.answer(1)
    assert loop.requests_alive() == 0
    assert loop.charged() == 0


def end_http1(loop, rng):
    if rng.random() < 0.3:
        loop.end_input()
    if rng.random() < 0.3 and (deadline := loop.deadline()):
        loop.set_now(deadline)
        loop.time_out()


def understood(given, step):
    """What a front end makes of the bytes when they come in such pieces, and whether it has done with the connection."""
    loop = Loopback(given.http2, watched=WATCHED, **LIMITS)
    for at in range(0, len(given.data), step):
        if not loop.feed(given.data[at:at + step]):
            break
    # A stream that breaks the rules is reset, once that is sent; messages that came before the break, in pieces of their own, count for nothing.
    if given.http2:
        loop.sent()
    infers = [(*request, loop.watched_headers(number)) for number, request in enumerate(loop.infers()) if not loop.cancelled(number)]
    return infers, loop.colds(), loop.finished()


def requests_of(parts):
    """(method, target, headers, body) of the requests that HTTP/1.1 reads, all of them Python's; and whether none follows, or it is refused."""
    loop = Loopback(False)
    more = all(loop.feed(part) for part in parts)
    calls = [call[:4] for call in loop.colds()]
    assert loop.infers() == []
    last = calls[-1:] and b"close" in dict(calls[-1][2]).get(b"connection", b"")
    if more and not last:   # an HTTP/1.0 request without keep-alive is the last one, too
        for number in range(len(calls)):
            loop.cold_answer(number, 200, [(b"content-length", b"0")], [])
        loop.sent()
        last = loop.finished()
    return calls, not more or bool(last)


def check_pieces(given):
    """However the bytes are cut, they are understood alike."""
    # libnghttp2 counts a CONTINUATION frame once for every piece its head comes in, and refuses more than eight.
    step = given.rng.choice(STEPS[2:] if given.http2 else STEPS)
    infers, colds, _ = understood(given, 1 << 20)
    in_pieces, colds_in_pieces, finished = understood(given, step)
    if finished and given.http2:  # a GOAWAY ends an idle connection between two pieces: what follows it in the same piece is still answered
        infers, colds = infers[:len(in_pieces)], colds[:len(colds_in_pieces)]
    assert (infers, colds) == (in_pieces, colds_in_pieces), "two readings of one stream"


def check(seed, run):
    given = case(seed, run)
    play(given)
    if run % 4 == 0:
        check_pieces(given)


def main(seed, first, seconds, path):
    end, run = time.monotonic() + seconds, first
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 8) as progress:
        while run == first or time.monotonic() < end:
            progress[:] = struct.pack("<q", run)
            check(seed, run)
            run += 1
    print(f"{run - first} runs of seed {seed}, none failed")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
