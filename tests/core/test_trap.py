"""Integer divisions that the processor refuses fail the run they happen in, and end nothing else."""

import os
import platform
import subprocess
import sys
import threading

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from batchmill.core import ort
from batchmill.core.probe import division_bytes

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors do not trap")
TYPES = {"INT8": TensorProto.INT8, "INT16": TensorProto.INT16, "INT32": TensorProto.INT32, "INT64": TensorProto.INT64}


@pytest.mark.parametrize(("code", "bits"), [
    ("f7f9", 32), ("41f7f9", 32), ("48f7f9", 64), ("f7f1", 32), ("f73c8f", 32), ("f77e10", 32), ("f73d00010000", 32), ("f77c2408", 32),
    ("48f73c24", 64), ("f7bf00100000", 32), ("41f77d00", 32), ("43f7bcec00100000", 32), ("48f73cfd00010000", 64), ("66f7f9", 16), ("6641f7f2", 16),
    ("f6f9", 8), ("40f6fe", 8), ("f630", 8), ("64f77804", 32),
])
def test_a_division_is_as_long_as_the_assembler_made_it(code, bits):
    assert division_bytes(bytes.fromhex(code)) == (len(code) // 2, bits)


@pytest.mark.parametrize("code", ["f7e1", "f7d9", "f7d1", "f7c105000000", "90", "ffc1", "", "66", "48"])
def test_what_is_no_division_is_not_stepped_over(code):
    assert division_bytes(bytes.fromhex(code))[0] == 0


@pytest.fixture
def divide(tmp_path):
    """Runs x / y, or what another operator makes of the two, of a datatype's own values."""

    def make(datatype, operator="Div", threads=1):
        path, kind = tmp_path / f"{operator}{datatype}{threads}.onnx", TYPES[datatype]
        tensors = [helper.make_tensor_value_info(name, kind, ["n"]) for name in "xyz"]
        graph = helper.make_graph([helper.make_node(operator, ["x", "y"], ["z"])], "g", tensors[:2], tensors[2:])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8), path)
        model, dtype = ort.Model(str(path), threads), np.dtype(datatype.lower())

        def run(x, y):
            given = {name: (datatype, [len(values)], np.array(values, dtype).tobytes()) for name, values in (("x", x), ("y", y))}
            return np.frombuffer(model.run(given)["z"][2], dtype).tolist()

        return run

    return make


@pytest.fixture(scope="module", autouse=True)
def library():
    ort.initialise()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("operator", ["Div", "Mod"])
@pytest.mark.parametrize("datatype", TYPES)
def test_the_lowest_number_by_minus_one_and_all_by_zero_fail_one_run_at_most(divide, datatype, operator, threads):
    run, lowest = divide(datatype, operator, threads), int(np.iinfo(datatype.lower()).min)
    for x, y in (([lowest], [-1]), ([9] * 5, [2, 0, 1, 3, 4]), ([lowest] * 1000, [-1] * 1000), ([0], [0])):
        try:
            assert all(value in (lowest, 0) for value in run(x, y))     # some kernels wrap, as numpy does
        except ValueError as error:
            assert "the model cannot run this input: " in str(error)
        assert run([9, -7], [2, 1]) == ([4, -7] if operator == "Div" else [1, 0])


def test_the_reason_is_told(divide):
    with pytest.raises(ValueError, match="it divides an integer by zero, or the lowest one by -1"):
        divide("INT32")([-(2**31)], [-1])


def test_a_trap_of_one_thread_is_none_of_another(divide):
    run, wrong = divide("INT64"), []

    def work(bad):
        for _ in range(2000):
            try:
                answer = run([-(2**63), 8], [-1 if bad else 1, 2])
            except ValueError:
                answer = None
            if (answer is None) != bad or (answer is not None and answer != [-(2**63), 4]):
                wrong.append((bad, answer))

    threads = [threading.Thread(target=work, args=[bad]) for bad in (True, False, True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif("san" in os.environ.get("LD_PRELOAD", ""), reason="a sanitizer takes the signal first")
def test_outside_of_a_run_the_signal_ends_the_process_as_before():
    code = "from batchmill.core import ort; import os, signal; ort.initialise(); os.kill(os.getpid(), signal.SIGFPE); signal.pause()"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=20).returncode == -8
