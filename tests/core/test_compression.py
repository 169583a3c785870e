"""Decompression against Python's gzip and zlib; what is damaged, cut or too large is refused."""

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchmill.core.compression import decompressed

COMPRESS = {"gzip": gzip.compress, "x-gzip": gzip.compress, "GZip": gzip.compress, "deflate": zlib.compress}
LIMIT = 1 << 20
BODIES = st.one_of(st.binary(max_size=300), st.builds(lambda part, times: part * times, st.binary(min_size=1, max_size=40), st.integers(1, 20_000)))


@given(BODIES, st.sampled_from(sorted(COMPRESS)), st.integers(0, 9))
def test_what_was_compressed_comes_back(body, coding, level):
    assert decompressed(COMPRESS[coding](body, level), coding, LIMIT) == body


@given(st.lists(BODIES, min_size=1, max_size=4))
def test_gzip_members_follow_each_other(bodies):
    assert decompressed(b"".join(map(gzip.compress, bodies)), "gzip", 4 * LIMIT) == b"".join(bodies)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_body_as_large_as_the_limit_passes_and_one_byte_more_does_not(coding):
    for size in (1, 100, 1 << 16, (1 << 16) + 1, 300_000):
        body = COMPRESS[coding](b"a" * size)
        assert len(decompressed(body, coding, size)) == size
        with pytest.raises(OverflowError, match="larger than the server's limit"):
            decompressed(body, coding, size - 1)


@given(st.sampled_from(["gzip", "deflate"]), st.binary(max_size=2000), st.data())
def test_a_cut_body_is_refused(coding, body, data):
    whole = COMPRESS[coding](body)
    with pytest.raises(ValueError, match="cut short"):
        decompressed(whole[: data.draw(st.integers(0, len(whole) - 1))], coding, LIMIT)


@given(st.sampled_from(["gzip", "deflate"]), st.binary(max_size=200), st.binary(min_size=1, max_size=40))
def test_bytes_after_the_end_are_refused(coding, body, more):
    with pytest.raises(ValueError, match="damaged|cut short|ends before"):
        decompressed(COMPRESS[coding](body) + more, coding, LIMIT)


@given(st.sampled_from(["gzip", "deflate"]), st.binary(max_size=400))
def test_garbage_is_refused(coding, garbage):
    if garbage[:2] in (b"\x1f\x8b",) or (len(garbage) > 1 and (garbage[0] << 8 | garbage[1]) % 31 == 0):
        return
    with pytest.raises(ValueError, match="damaged|cut short"):
        decompressed(garbage, coding, LIMIT)


@given(st.sampled_from(["gzip", "deflate"]), st.binary(min_size=1, max_size=300), st.data())
def test_a_flipped_bit_never_gives_another_body(coding, body, data):
    """Both formats carry a checksum; what it does not cover (gzip's name, time, flags of the system) does not change the body."""
    whole = bytearray(COMPRESS[coding](body))
    at = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[at // 8] ^= 1 << at % 8
    try:
        got = decompressed(bytes(whole), coding, LIMIT)
    except ValueError:
        return
    assert got == body


@pytest.mark.parametrize("coding", ["br", "zstd", "", "gzip, gzip", "gzip;q=1", "\u00e9"])
def test_an_unknown_coding_is_told_apart(coding):
    with pytest.raises(LookupError):
        decompressed(b"x", coding, LIMIT)


def test_identity_is_no_coding():
    assert decompressed(b"x", "Identity", LIMIT) == b"x"
