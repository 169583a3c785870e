"""The packed inputs of a target: corpus/TARGET.xz holds what together reaches all that fuzzing has reached, small ones preferred."""

import hashlib
import lzma
import struct
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"


def read(path: Path) -> list[bytes]:
    """The inputs of a packed file; none where it is missing."""
    found, data = [], lzma.decompress(path.read_bytes()) if path.exists() else b""
    while data:
        size = struct.unpack_from(">I", data)[0]
        found.append(data[4:4 + size])
        data = data[4 + size:]
    return found


def write(path: Path, inputs: list[bytes]) -> None:
    """One after the other, so that what they have in common is stored once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = b"".join(struct.pack(">I", len(data)) + data for data in sorted(set(inputs)))
    path.write_bytes(lzma.compress(whole, preset=9 | lzma.PRESET_EXTREME))


def unpack(inputs: list[bytes], folder: Path) -> None:
    """One file for each, named by its content as libFuzzer names them."""
    folder.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


def cover(reached: list[tuple[bytes, frozenset[int]]], most_bytes: int) -> list[bytes]:
    """A few of the inputs that together reach what all do, by their bytes; at most so many bytes of them."""
    kept, seen = [], set[int]()
    left = sorted(reached, key=lambda pair: len(pair[0]))
    for data, features in left:
        if not features <= seen and sum(map(len, kept)) + len(data) <= most_bytes:
            seen |= features
            kept.append(data)
    return kept
