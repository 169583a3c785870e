"""The Python clients and curl of docs/conformance.md, whole columns; `make conformance` has the other languages."""

from __future__ import annotations

import pytest
from conformance.calls import CALLS
from conformance.columns import LOCAL, cells
from conformance.served import serve
from conformance.table import PAGE, Result, marks


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("conformance")) as server:
        yield server


@pytest.fixture(scope="module", params=LOCAL, ids=lambda client: client.name)
def column(request, asked):
    return Result(request.param, cells(request.param, asked))


def test_every_call_of_the_client_gets_the_right_answer_or_the_right_error(column):
    assert column.failed() == []


def test_the_page_tells_what_the_client_gets_today(column):
    told = {call: marked.get(column.client.title) for call, marked in marks(PAGE.read_text()).items()}
    assert told == {call: {"ok": "✓", "–": "–"}.get(column.cells[call], "✗") for call in CALLS}, "make conformance"
