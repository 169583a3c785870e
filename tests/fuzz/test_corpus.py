"""What fuzzing has found worth keeping, played again."""

import pytest

from fuzz import corpus
from fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_that_was_kept_is_misread(name):
    kept = corpus.read(corpus.FOLDER / f"{name}.xz")
    assert len(kept) >= 40
    for data in [*TARGETS[name].seeds(), *kept]:
        try:
            TARGETS[name].check(data)
        except AssertionError as error:
            pytest.fail(f"{name}: {data!r}: {error}", pytrace=False)


def test_the_packed_inputs_stay_small():
    assert sum(path.stat().st_size for path in corpus.FOLDER.iterdir()) < 300_000


def test_packing_keeps_every_input_and_every_feature(tmp_path):
    inputs = [b"", b"a", b"a" * 5000, bytes(range(256))]
    corpus.write(tmp_path / "x.xz", inputs)
    assert sorted(corpus.read(tmp_path / "x.xz")) == sorted(inputs)
    reached = [(b"long one", frozenset({1, 2, 3})), (b"s", frozenset({1})), (b"tt", frozenset({1}))]
    assert corpus.cover(reached, 100) == [b"s", b"long one"]
    assert corpus.cover(reached, 5) == [b"s"]
