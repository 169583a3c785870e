"""When an I/O thread stops running a version's batches itself."""

from __future__ import annotations

from batchmill.core.probe import inline_runs

US, MS, S = 1_000, 1_000_000, 1_000_000_000


def test_short_runs_stay_and_are_not_watched() -> None:
    assert inline_runs((at * MS, 900 * US, 900 * US) for at in range(100)) == ["unwatched"] * 100


def test_runs_that_were_long_because_the_core_was_taken_away_stay() -> None:
    assert inline_runs((at * 100 * MS, 8 * MS, 30 * US) for at in range(30)) == ["unwatched"] + ["watched"] * 29


def test_the_second_run_that_is_long_of_its_own_ends_them_for_a_second() -> None:
    long = 5 * MS, 5 * MS
    assert inline_runs([(0, *long), (10 * MS, *long), (20 * MS, *long), (1009 * MS, *long)]) == ["unwatched", "watched", "executor", "executor"]


def test_after_the_pause_they_are_still_watched_so_that_one_long_run_ends_them() -> None:
    long = 5 * MS, 5 * MS
    assert inline_runs([(0, *long), (1, *long), (S + 1, *long), (S + 2, *long)]) == ["unwatched", "watched", "watched", "executor"]


def test_the_watch_ends_some_seconds_after_the_last_long_run() -> None:
    assert inline_runs([(0, 8 * MS, 0), (4 * S, 8 * MS, 0), (8 * S, 10 * US, 0), (9 * S, 10 * US, 0)]) == ["unwatched", "watched", "watched", "unwatched"]
