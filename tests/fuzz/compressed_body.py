"""A gzip or deflate body within a limit: decompressed as zlib does it, or refused.

An input is a byte that chooses the coding, two bytes of the limit, and the body.
"""

import gzip
import random
import struct
import zlib

from batchmill.core.compression import decompressed

WORDS = (b"\x1f\x8b\x08", b"\x1f\x8b\x08\x1f", b"\x78\x9c", b"\x78\xda", b"\x78\xbb", b"\x00\x00\xff\xff",
         b"\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00")
CODINGS = (("gzip", zlib.MAX_WBITS + 16), ("deflate", zlib.MAX_WBITS))
BODIES = (b"", b"a", b'{"inputs":[]}', bytes(range(256)), b"0" * 70_000)


def seeds():
    """Bodies within the limit and beyond it, whole, cut, twice, and with more behind them; members with every optional field."""
    for body in BODIES:
        for first, packed in ((b"\0", gzip.compress(body, mtime=0)), (b"\1", zlib.compress(body))):
            for limit in (len(body), len(body) - 1, 0, 65535):
                yield first + struct.pack(">H", max(0, min(limit, 65535))) + packed
            yield first + b"\xff\xff" + packed * 2
            yield first + b"\xff\xff" + packed[:-3]
            yield first + b"\xff\xff" + packed + b"\0"
    plain = gzip.compress(b"named", mtime=0)
    yield b"\0\0\5" + plain[:3] + b"\x1e" + plain[4:10] + struct.pack("<H", 2) + b"ex" + b"name\0" + b"comment\0" + b"\0\0" + plain[10:]


def mutate(data, max_size, seed, mutate_bytes):
    """Mutates what is compressed, too: a checksum lets few other changes pass."""
    rng = random.Random(seed)
    if rng.random() < 0.5:
        return mutate_bytes(data, max_size)
    wbits = CODINGS[data[0] & 1][1] if data else zlib.MAX_WBITS
    reader = zlib.decompressobj(wbits)
    try:
        plain = reader.decompress(data[3:], 5000)
    except zlib.error:
        plain = data[3:]
    writer = zlib.compressobj(rng.randrange(10), zlib.DEFLATED, wbits, rng.randrange(1, 10), rng.randrange(5))
    plain = bytes(mutate_bytes(plain, len(plain) + 100)) if plain else rng.randbytes(9)
    cut = rng.randrange(len(plain) + 1)
    packed = writer.compress(plain[:cut]) + writer.flush(rng.choice((zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH))) + writer.compress(plain[cut:])
    return (data[:3].ljust(3, b"\0") + packed + writer.flush() + (data[3:] if rng.random() < 0.2 else b""))[:max_size]


def expected(body, coding, wbits, most=1 << 20):
    """What zlib makes of it; None: it is damaged, cut, or has more behind it. At most so many bytes are looked at."""
    plain = b""
    while True:
        reader = zlib.decompressobj(wbits)
        try:
            plain += reader.decompress(body, most - len(plain) + 1)
        except zlib.error:
            return None
        if len(plain) > most:
            return plain
        if not reader.eof or (reader.unused_data and coding != "gzip"):
            return None
        body = reader.unused_data
        if not body:
            return plain


def check(data):
    """One body."""
    if len(data) < 3:
        return
    (coding, wbits), limit, body = CODINGS[data[0] & 1], struct.unpack(">H", data[1:3])[0], data[3:]
    wanted = expected(body, coding, wbits) if body else None
    try:
        got = decompressed(body, coding, limit)
    except OverflowError:
        assert wanted is None or len(wanted) > limit, "refused as too large"
    except ValueError:
        assert wanted is None or len(wanted) > limit, "refused"
    else:
        assert got == wanted, "not what zlib reads"
        assert len(got) <= limit
