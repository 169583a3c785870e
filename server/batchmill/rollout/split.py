"""Which key goes to which version: pure functions.

A key has one of SLOTS slots, for good. A split gives each slot to a version, as runs of slots; when weights change, only as many slots move
as they must, so that a key keeps its version while the weights allow. (Consistent hashing moves keys between versions whose weights stand.)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

SLOTS = 10_000  # router.hpp's kSlots: a hundredth of a percent is the least share
Split = tuple[tuple[int, str], ...]  # (the first slot that is not its own any more, version), ascending; the last one ends at SLOTS
_FNV, _MASK = 0x100000001B3, (1 << 64) - 1


def slots_of(weights: Mapping[str, float]) -> dict[str, int]:
    """Slots by version, in proportion to the weights (positive, at least one), by largest remainders: together SLOTS."""
    total = sum(weights.values())
    exact = {version: SLOTS * weight / total for version, weight in weights.items()}
    slots = {version: int(share) for version, share in exact.items()}
    by_rest = sorted(exact, key=lambda version: (slots[version] - exact[version], version))
    for version in by_rest[: SLOTS - sum(slots.values())]:
        slots[version] += 1
    return slots


def rebalanced(before: Split, weights: Mapping[str, float]) -> Split:
    """As few slots as possible change their version: those that lose give from the end of what they have, those that gain fill what becomes free.

    weights: of all versions that shall have some; 0 is none. ValueError: none is above 0.
    """
    wanted = {version: weight for version, weight in weights.items() if weight > 0}
    if not wanted:
        raise ValueError("no version has a weight above 0")
    keep = slots_of(wanted)
    owners: list[tuple[int, str]] = []  # (slots, version), '' for what is free
    for slots, version in runs_of(before or ((SLOTS, ""),)):
        kept = min(slots, keep.get(version, 0))
        keep[version] = keep.get(version, 0) - kept
        owners += [(kept, version), (slots - kept, "")]
    takers = [(version, slots) for version, slots in keep.items() if version and slots > 0]
    filled: list[tuple[int, str]] = []
    for slots, version in owners:
        while not version and slots:
            taker, room = takers.pop()
            taken = min(slots, room)
            filled.append((taken, taker))
            slots -= taken
            if room > taken:
                takers.append((taker, room - taken))
        filled.append((slots, version))
    return joined(filled)


def runs_of(split: Split) -> list[tuple[int, str]]:
    """(slots, version) in order."""
    begins = (0, *(end for end, _ in split))
    return [(end - begin, version) for begin, (end, version) in zip(begins, split, strict=False)]


def joined(runs: list[tuple[int, str]]) -> Split:
    split: list[tuple[int, str]] = []
    end = 0
    for slots, version in runs:
        if not slots:
            continue
        end += slots
        if split and split[-1][1] == version:
            split.pop()
        split.append((end, version))
    return tuple(split)


def shares_of(split: Split) -> dict[str, float]:
    """Of all slots, by version."""
    shares: dict[str, float] = {}
    for slots, version in runs_of(split):
        shares[version] = shares.get(version, 0.0) + slots / SLOTS
    return shares


def among(split: Split, ready: Collection[str]) -> Split:
    """The slots of versions that are not ready go to those that are, in proportion; all others stay. Empty: none is."""
    there = {version: share for version, share in shares_of(split).items() if version in ready}
    if not there:
        return ()
    return split if len(there) == len(shares_of(split)) else rebalanced(split, there)


def slot_of(model: str, key: str) -> int:
    """The slot of a key: FNV-1a of model, NUL and key, mixed by MurmurHash3's finaliser. The data plane's router computes the same."""
    value = 0xCBF29CE484222325
    for byte in f"{model}\0{key}".encode():
        value = (value ^ byte) * _FNV & _MASK
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = (value ^ value >> 33) * factor & _MASK
    value ^= value >> 33
    return (value >> 32) * SLOTS >> 32


def version_of(split: Split, slot: int) -> str:
    return next(version for end, version in split if slot < end)
