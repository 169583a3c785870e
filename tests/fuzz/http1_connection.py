"""An HTTP/1.1 connection: any answer at any time, however it is cut, and as llhttp and the slow twin read it.

The first four bytes of an input seed what else happens to the connection (fuzz.drive), the others are the client's.
"""

import gzip
import random
import re
import zlib

from batchmill.core import rest
from fuzz import drive, inputs
from reference import http1 as reference
from reference import llhttp

WORDS = (*inputs.HTTP1_WORDS, b"Content-Encoding: deflate\r\n", b"Accept-Encoding: gzip\r\n", b"POST ", b"HEAD ", b" HTTP/1.1\r\n",
         b"/v2/models/m/infer",
         b"/v2/health/live", b"Connection: keep-alive\r\n", b"chunked", b"identity", b"\x1f\x8b\x08", b"\x78\x9c")


def packed_request(coding, body):
    return b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n%s" % (coding, len(body), body)


def seeds():
    """Every request of the tests, alone, twice, and after another; packed bodies, whole, cut and far larger than they look."""
    for number, request in enumerate(inputs.HTTP1_REQUESTS):
        yield b"abc%d" % number + request
        yield b"def%d" % number + request + inputs.HTTP1_REQUESTS[number - 1]
    for body in (b'{"inputs":[]}', b"0" * 100_000):
        yield b"gzip" + packed_request(b"gzip", gzip.compress(body, mtime=0))
        yield b"defl" + packed_request(b"deflate", zlib.compress(body))
    yield b"gzip" + packed_request(b"gzip", gzip.compress(b"cut", mtime=0)[:-9])
    yield b"twic" + packed_request(b"gzip, gzip", gzip.compress(gzip.compress(b"twice", mtime=0), mtime=0))
    chunk = gzip.compress(b"in chunks", mtime=0)
    yield (b"chnk" + inputs.CHUNKED.split(b"3;a=b")[0].replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
           + b"%x\r\n%s\r\n0\r\n\r\n" % (len(chunk), chunk))


def check(data):
    """One connection, from its first byte until nothing of it is left."""
    plan, stream = data[:4], data[4:]
    drive.play(inputs.Case(False, stream, random.Random(plan)))
    drive.check_pieces(inputs.Case(False, stream, random.Random(plan)))
    check_reading(stream)


def check_reading(stream):
    """Requests that are all Python's are read as the twin reads them; what llhttp reads otherwise is refused."""
    wanted, _ = reference.read(stream)
    if any(rest.route_of(r.method, r.target)[0] != "cold" for r in wanted) or re.search(rb"(?i)content-encoding", stream):
        return
    ours, refused = drive.requests_of([stream])
    assert ours == [(r.method, r.target, r.headers, r.body) for r in wanted], "not what the twin reads"
    llhttp.compare(stream, ours, refused)
