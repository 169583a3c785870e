"""Coverage-guided runs of a target on a build with counters: python -m fuzz.guided TARGET SECONDS FOLDER PACKED (see .ci/fuzz).

FOLDER/corpus/TARGET keeps what was found from run to run; an input that fails is saved as FOLDER/found-TARGET-*. SECONDS 0 packs that
corpus, minimised, into PACKED/TARGET.xz.
"""

import subprocess
import sys
from pathlib import Path

import atheris

from fuzz import corpus
from fuzz.targets import TARGETS

MAX_BYTES = 4096            # of an input: enough for every limit that the targets set
PACKED_BYTES = 250_000      # of a target's inputs in the repository, before they are compressed


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


def reached(name: str, folder: Path, files: list[Path]) -> list[tuple[bytes, frozenset[int]]]:
    """Each file's bytes with the features that libFuzzer counts for it, from the control file with which it merges corpora."""
    control = folder / f"{name}.merge"
    control.write_text("\n".join([str(len(files)), "0", *map(str, files), ""]))
    again = [sys.executable, "-m", "fuzz.guided", *sys.argv[1:5]]
    subprocess.run([*again, "-merge_inner=1", f"-merge_control_file={control}", "-detect_leaks=0"], check=True)
    lines = [line.split() for line in control.read_text().splitlines()]
    return [(files[int(line[1])].read_bytes(), frozenset(map(int, line[2:]))) for line in lines if line[:1] == ["FT"]]


def main() -> None:
    name, seconds, folder, packed = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
    path, kept = packed / f"{name}.xz", folder / "corpus" / name
    if sys.argv[5:]:        # flags for libFuzzer, from reached()
        run(name, sys.argv[5:])
    corpus.unpack([*TARGETS[name].seeds(), *corpus.read(path)], kept)
    if seconds == 0:
        corpus.write(path, corpus.cover(reached(name, folder, sorted(kept.iterdir())), PACKED_BYTES))
        print(f"{path}: {len(corpus.read(path))} inputs, {path.stat().st_size} bytes")
        return
    words = dictionary(TARGETS[name].WORDS, folder / f"{name}.dict")
    run(name, [f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", f"-dict={words}", "-timeout=20", "-rss_limit_mb=6000", "-detect_leaks=0",
               "-print_final_stats=1", "-print_funcs=0", "-reload=0", f"-artifact_prefix={folder}/found-{name}-", str(kept)])


if __name__ == "__main__":
    main()
