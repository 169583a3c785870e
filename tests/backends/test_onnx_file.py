"""Files that are no ONNX, and what of those that are is read without the runtime."""

import os
import time

import pytest

from batchmill.backends.onnx_file import external_locations, unloadable
from batchmill.errors import ModelError
from e2e import models


def spoiled(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(("spoil", "wanted"), [
    (spoiled(lambda raw: b""), "the file is empty"), (spoiled(lambda raw: raw[:-7]), "a field is longer than the file"),
    (spoiled(lambda raw: b"\xff" * 20), "a number does not end"), (spoiled(lambda raw: raw + b"\x0f"), "unknown wire type 7"),
    (spoiled(lambda raw: raw + bytes(2)), "number 0"), (lambda path: os.truncate(path, 1 << 30), "number 0"),
    (lambda path: os.truncate(path, 2 << 30), "2147483648 bytes, where protobuf ends at 2 GiB"), (os.unlink, "No such file"),
])
@pytest.mark.parametrize("read", [external_locations, unloadable])
def test_a_file_that_is_no_onnx_is_refused_at_once(tmp_path, read, spoil, wanted):
    path = models.linear(tmp_path)
    spoil(path)
    began = time.process_time()
    with pytest.raises(ModelError, match=wanted):
        read(path)
    assert time.process_time() - began < 0.5


def test_the_files_beside_it_are_named(tmp_path):
    assert external_locations(models.external(tmp_path)) == {"weights.bin"}
    assert external_locations(models.linear(tmp_path)) == set()
