"""A table that hides a failure would be worse than none."""

from __future__ import annotations

import subprocess

import pytest

from conformance import columns, table
from conformance.calls import CALLS, Column, told
from conformance.columns import Client
from conformance.foreign import LANGUAGES, Language
from conformance.table import PAGE, Result, marks, page

CLIENT = Client("one", "One", lambda: "1.0", lambda address, calls: {})
FINE = dict.fromkeys(CALLS, "ok")


def test_a_cell_that_fails_fails_the_table_and_is_told():
    result = Result(CLIENT, FINE | {"stream": "failed: got nothing"})
    assert result.failed() == ["one stream: failed: got nothing"]
    assert marks(page([result]))["stream"] == {"One": "✗"}
    assert "1. stream, One: failed: got nothing." in page([result])


def test_what_is_explained_does_not_fail_and_what_needs_no_explanation_any_more_does(monkeypatch):
    monkeypatch.setitem(columns.EXPLAINED, ("one", "stream"), "it has none of the five")
    assert Result(CLIENT, FINE | {"stream": "failed: got nothing"}).failed() == []
    assert "1. stream: it has none of the five." in page([Result(CLIENT, FINE | {"stream": "failed: got nothing"})])
    assert len(Result(CLIENT, FINE).failed()) == 1


def test_a_language_without_its_toolchain_is_named_and_has_no_mark_of_an_earlier_run():
    language = Language("go", "Go", ("go-is-not-here", "ls"), ())
    assert language.missing() == ["go-is-not-here"]
    written = page([Result(CLIENT, FINE), Result(language.client(), {}, "not run: go-is-not-here not found")])
    assert all(marked == {"One": "✓", "Go": "not run"} for marked in marks(written).values())
    assert "| Go | not run: go-is-not-here not found |" in written


def test_a_call_that_a_client_says_nothing_of_or_skips_has_failed():
    done = subprocess.CompletedProcess([], 1, "live\tok\nload-unload\tskipped: the server has no model \"spare\"\n", "died")
    outcomes = told(["live", "load-unload", "stream"], done)
    assert outcomes["live"] == "ok"
    assert outcomes["stream"].startswith("failed: nothing was said of it")
    assert Result(CLIENT, outcomes).failed()[0].startswith("one load-unload: skipped")


def test_a_column_tells_right_wrong_and_missing_calls_apart():
    class Half(Column):
        def live(self):
            pass

        def ready(self):
            raise ValueError("no\nanswer")

    assert [Half().outcome(call) for call in ("live", "ready", "model-ready")] == ["ok", "failed: ValueError no answer", "–"]


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.folder)
def test_each_readme_says_how_to_build_and_then_how_to_run(language):
    build, run, *more = language.blocks()
    assert build
    assert "localhost:8001" in run[0]
    assert not more


def test_the_page_has_every_client_and_call():
    told_of = marks(PAGE.read_text())
    assert list(told_of) == list(CALLS)
    titles = [client.title for client in columns.LOCAL] + [language.title for language in LANGUAGES]
    assert all(list(marked) == titles for marked in told_of.values())
    assert table.version_told(PAGE.read_text()) == table.__version__, "make conformance"
