"""The command that runs Triton's examples judges them by what they do."""

import os
import re
import subprocess
import sys
from pathlib import Path

ASKS = '''
import argparse, sys
import numpy as np
import tritonclient.PROTOCOL as triton
parser = argparse.ArgumentParser()
parser.add_argument("--url", "-u")
given = []
for name, array in (("INPUT0", np.full((1, 16), b"20", object)), ("INPUT1", np.full((1, 16), b"-1", object))):
    given.append(triton.InferInput(name, [1, 16], "BYTES"))
    given[-1].set_data_from_numpy(array)
client = triton.InferenceServerClient(parser.parse_args().url)
answer = client.infer("simple_string", given)
metadata = client.get_server_metadata()
assert "triton" in (metadata.name if "PROTOCOL" == "grpc" else metadata["name"])
assert (int(answer.as_numpy("OUTPUT0")[0][3]), int(answer.as_numpy("OUTPUT1")[0][3])) == (19, 21)
print("PASS: string")
'''
COMMAND = Path(__file__).with_name("triton_examples.py")


def test_an_example_passes_by_its_exit_code_and_its_own_word(tmp_path):
    scripts = {
        "simple_http_some_client": ASKS.replace("PROTOCOL", "http"), "simple_grpc_some_client": ASKS.replace("PROTOCOL", "grpc"),
        "silent": 'if False:\n    print("PASS")\n', "wordless": "", "wrong": 'print("PASS")\nraise SystemExit(3)',
        "image_client": "raise SystemExit('expecting this and that')", "simple_http_shm_client": "",
    }
    for name, source in scripts.items():
        (tmp_path / f"{name}.py").write_text(source)
    done = subprocess.run([sys.executable, COMMAND, tmp_path, "--write", tmp_path / "table.md"], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(COMMAND.parents[1])})
    rows = dict(re.findall(r"^\| (\w+) \|  \| ([a-z ]+) \|", (tmp_path / "table.md").read_text(), re.MULTILINE))
    assert rows == {"simple_http_some_client": "passed", "simple_grpc_some_client": "passed", "silent": "failed", "wordless": "passed", "wrong": "failed",
                    "image_client": "not offered", "simple_http_shm_client": "passed"}
    assert done.returncode == 1, done.stdout + done.stderr     # some failed
