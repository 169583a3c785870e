"""The access log keeps a fair share, loses nothing that there is room for, and counts what there is none for."""

import pytest

from batchmill.core.access_log import rehearse


@pytest.mark.parametrize(("share", "least", "most"), [(1.0, 100_000, 100_000), (0.1, 9_500, 10_500), (0.0, 0, 0), (1e-30, 0, 0)])
def test_the_share_of_requests_that_are_kept(share, least, most):
    kept, dropped = rehearse(share, 100_000, taken_every=1000)
    assert least <= len(kept) <= most
    assert dropped == 0


def test_what_nobody_reads_is_dropped_and_counted():
    kept, dropped = rehearse(1.0, 5000, taken_every=10_000)
    assert len(kept) + dropped == 5000
    assert len(kept) == 1024


def test_a_record_tells_what_the_request_has():
    (record,), _ = rehearse(1.0, 1, taken_every=1, request_id=b"seven")
    assert record["request_id"] == "seven"
    assert record["peer"] == "loopback"
    assert record["outcome"] == "ok"
    assert record["total_ms"] == pytest.approx(1.5, abs=0.5)
    assert not {"reason", "traceparent", "queue_ms", "model"} & set(record)


@pytest.mark.parametrize("given", [b"a" * 300, b"\xff\xfe", "é".encode() * 200])
def test_any_bytes_of_a_caller_become_text_of_bounded_length(given):
    (record,), _ = rehearse(1.0, 1, taken_every=1, request_id=given)
    assert isinstance(record["request_id"], str)
    assert len(record["request_id"].encode()) <= 3 * 256
