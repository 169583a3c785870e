"""Coverage-guided runs of a target on a build with counters: python -m fuzz.guided TARGET SECONDS FOLDER PACKED (see .ci/fuzz).

FOLDER/corpus/TARGET keeps what was found from run to run; an input that fails is saved as FOLDER/found-TARGET-*. SECONDS 0 packs that
corpus, minimised, into PACKED/TARGET.zip.
"""

import shutil
import sys
from pathlib import Path

import atheris

from fuzz import corpus
from fuzz.targets import TARGETS

MAX_BYTES = 4096       # of an input: enough for every limit that the targets set
PACKED_BYTES = 400     # of an input that is kept in the repository


def dictionary(words: tuple[bytes, ...], path: Path) -> Path:
    path.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in words if word))
    return path


def run(name: str, flags: list[str]) -> None:
    """Hands over to libFuzzer, which ends the process."""
    target = TARGETS[name]
    mutate = getattr(target, "mutate", None)
    more = {} if mutate is None else {
        "custom_mutator": lambda data, max_size, seed: mutate(bytes(data), max_size, seed, lambda part, most: atheris.Mutate(part, most))}
    atheris.Setup([f"fuzz.guided.{name}", *flags], lambda data: target.check(bytes(data)), **more)
    atheris.Fuzz()


def pack(folder: Path, path: Path) -> None:
    corpus.write(path, [file.read_bytes() for file in folder.iterdir()])
    print(f"{path}: {len(corpus.read(path))} inputs, {path.stat().st_size} bytes")


def main() -> None:
    name, seconds, folder, packed = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
    path, kept, least = packed / f"{name}.zip", folder / "corpus" / name, folder / "least" / name
    if sys.argv[5:]:        # flags for libFuzzer, of a process that minimises
        run(name, sys.argv[5:])
    if seconds == 0:
        pack(least, path)
        return
    corpus.unpack([*TARGETS[name].seeds(), *corpus.read(path)], kept)
    shutil.rmtree(least, ignore_errors=True)
    words = dictionary(TARGETS[name].WORDS, folder / f"{name}.dict")
    run(name, [f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", f"-dict={words}", "-timeout=20", "-rss_limit_mb=6000", "-detect_leaks=0",
               "-print_final_stats=1", "-reload=0", "-close_fd_mask=0", f"-artifact_prefix={folder}/found-{name}-", str(kept)])


if __name__ == "__main__":
    main()
