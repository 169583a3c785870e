"""Where entries lie: the file finds what memory does."""

import sqlite3

from hypothesis import given
from hypothesis import strategies as st

from batchmill import chain
from batchmill.chain import Event
from batchmill.ledger import FileLedger, MemoryLedger, Wanted
from batchmill.store import MIGRATIONS

EVENTS = st.builds(Event, st.sampled_from(["a", "a.b", "a.bc", "ab", "rollout.x"]), st.sampled_from(["", "m", "n", "%", "é"]))
WANTED = st.builds(Wanted, st.sampled_from(["", "m", "%", "x"]), st.sampled_from(["", "a", "a.b", "rollout", "_"]),
                   st.sampled_from(["", *(chain.told_time(at) for at in (0, 2000, 9000))]), st.integers(0, 12), st.integers(1, 6))


@given(st.lists(st.tuples(EVENTS, st.integers(0, 5)), max_size=10), WANTED)
def test_the_file_finds_what_a_look_at_each_entry_finds(given_events, wanted):
    file = sqlite3.connect(":memory:", isolation_level=None)
    for migration in MIGRATIONS:
        file.executescript(migration)
    entries = [chain.entry_of(event, at * 1000) for event, at in given_events]
    in_file, in_memory = FileLedger(file), MemoryLedger()
    if entries:
        assert in_file.append(entries)[-1].seq == len(entries) + 1
        in_memory.append([{**chain.entry_of(Event("audit.began", actor="start"), 0), "at": entries[0]["at"]}, *entries])
    assert in_file.select(wanted) == in_memory.select(wanted)
    assert in_file.read(wanted.before, wanted.newest) == in_memory.read(wanted.before, wanted.newest)
    assert in_file.head() == in_memory.head()
    file.close()
