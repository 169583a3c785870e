"""Which of a version's batches an I/O thread runs itself."""

from __future__ import annotations

from batchmill.core.probe import inline_runs

US, MS, S = 1_000, 1_000_000, 1_000_000_000
SHORT = 30 * US
LONG = SHORT, 5 * MS, 5 * MS  # predicted, by the clock, of the thread's own time


def test_short_runs_stay_and_are_not_watched() -> None:
    assert inline_runs((at * MS, SHORT, 900 * US, 900 * US) for at in range(100)) == ["unwatched"] * 100


def test_what_is_predicted_to_be_long_or_not_at_all_goes_to_the_executors() -> None:
    assert inline_runs((at * S, predicted, 30 * US, 30 * US) for at, predicted in enumerate((0, 241 * US, 5 * MS))) == ["executor"] * 3


def test_a_bearable_run_does_not_go_behind_another_models() -> None:
    assert inline_runs([(S, 240 * US, 30 * US, 30 * US), (2 * S, 241 * US, 30 * US, 30 * US)], busy=True) == ["unwatched", "executor"]


def test_runs_that_were_long_because_the_core_was_taken_away_stay() -> None:
    assert inline_runs((at * 100 * MS, SHORT, 8 * MS, 30 * US) for at in range(30)) == ["unwatched"] + ["watched"] * 29


def test_the_second_run_that_is_long_of_its_own_ends_them_for_a_second() -> None:
    assert inline_runs([(0, *LONG), (10 * MS, *LONG), (20 * MS, *LONG), (1009 * MS, *LONG)]) == ["unwatched", "watched", "executor", "executor"]


def test_after_the_pause_they_are_still_watched_so_that_one_long_run_ends_them() -> None:
    assert inline_runs([(0, *LONG), (1, *LONG), (S + 1, *LONG), (S + 2, *LONG)]) == ["unwatched", "watched", "watched", "executor"]


def test_the_watch_ends_some_seconds_after_the_last_long_run() -> None:
    runs = [(0, SHORT, 8 * MS, 0), (4 * S, SHORT, 8 * MS, 0), (8 * S, SHORT, 10 * US, 0), (9 * S, SHORT, 10 * US, 0)]
    assert inline_runs(runs) == ["unwatched", "watched", "watched", "unwatched"]


def test_what_seems_a_few_times_too_long_is_tried_for_a_fiftieth_of_the_time() -> None:
    """Else what was slow on a busy executor once would never be found to be quick on an I/O thread."""
    told = inline_runs((S + at * MS, 150 * US, 30 * US, 30 * US) for at in range(5000))
    assert told.count("unwatched") in range(90, 111)
    assert told[:12] == ["unwatched"] * 10 + ["executor"] * 2
