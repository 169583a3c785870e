"""The packed seeds of a target: corpus/TARGET.zip holds inputs that reach each edge of the code which fuzzing has reached. Same inputs, same file."""

import hashlib
import zipfile
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"


def read(path: Path) -> list[bytes]:
    """The inputs of a packed file; none where it is missing."""
    if not path.exists():
        return []
    with zipfile.ZipFile(path) as packed:
        return [packed.read(name) for name in packed.namelist()]


def write(path: Path, inputs: list[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for data in sorted(set(inputs), key=lambda data: (len(data), data)):
            # a fixed time, and short names: they stand in the file twice each
            packed.writestr(zipfile.ZipInfo(hashlib.sha1(data).hexdigest()[:6], (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)


def unpack(inputs: list[bytes], folder: Path) -> None:
    """One file for each, named by its content as libFuzzer names them."""
    folder.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)
