"""ONNX Runtime's library: the table of its functions, which library is taken, and what it does by itself."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

from batchmill.core import ort
from batchmill.core.ort_library import find_library

ROOT = Path(__file__).resolve().parents[2]
NOT_UNDER_TSAN = pytest.mark.skipif("tsan" in os.environ.get("LD_PRELOAD", ""), reason="ThreadSanitizer begins a thread of its own with the first one")


@pytest.fixture(scope="module", autouse=True)
def version() -> str:
    return ort.initialise()


def test_the_version_is_the_one_in_the_library_s_file_name(version: str) -> None:
    assert find_library().endswith(version)
    assert version == onnxruntime.__version__


def test_the_generated_files_are_those_that_the_list_of_entries_gives() -> None:
    location = importlib.util.spec_from_file_location("generate_ort_api", ROOT / "ext" / "generate_ort_api.py")
    generator = importlib.util.module_from_spec(location)
    location.loader.exec_module(generator)
    assert generator.render(*generator.read_entries(generator.ENTRIES.read_text())) == generator.HEADER.read_text()
    assert generator.render_declarations() == generator.DECLARATIONS.read_text()


def test_indices_are_line_numbers_in_the_list_of_entries() -> None:
    entries = [line.split()[0] for line in (ROOT / "ext" / "ort_api_entries.txt").read_text().splitlines() if line[0] != "#"]
    header = (ROOT / "ext" / "batchmill" / "core" / "ort_api.hpp").read_text()
    indices = dict(re.findall(r"static constexpr size_t (\w+) = (\d+);", header))
    assert len(indices) > 40
    assert indices == {name: str(entries.index(name)) for name in indices}
    # The last entries of the table's versions 1 and 15, which upstream asserts itself.
    assert (entries.index("ReleaseCustomOpDomain"), entries.index("GetBuildInfoString")) == (101, 254)


SHIM = """
#include <dlfcn.h>
#include <string.h>
#include <stdint.h>
struct Base { const void* const* (*GetApi)(uint32_t); const char* (*GetVersionString)(void); };
static const void* table[1000];
static struct Base base, *real;
static const void* const* get(uint32_t version) {
    const void* const* entries = real->GetApi(version);
    memcpy(table, entries, ENTRIES * sizeof(void*));
    const void* kept = table[A]; table[A] = table[B]; table[B] = kept;
    return table;
}
struct Base* OrtGetApiBase(void) {
    real = ((struct Base* (*)(void)) dlsym(dlopen(LIBRARY, RTLD_NOW), "OrtGetApiBase"))();
    base.GetApi = get; base.GetVersionString = real->GetVersionString;
    return &base;
}
"""


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs a C compiler")
@pytest.mark.parametrize(("right", "wrong"), [
    ("SessionGetInputName", "SessionGetOutputName"), ("SessionGetInputTypeInfo", "SessionGetOutputTypeInfo"),
    ("GetDimensionsCount", "GetTensorShapeElementCount"), ("RunOptionsSetTerminate", "RunOptionsUnsetTerminate"),
    ("SessionGetInputCount", "SessionGetOverridableInitializerCount")])
def test_a_wrong_index_is_caught_at_start_up(tmp_path: Path, right: str, wrong: str, version: str) -> None:
    entries = [line.split()[0] for line in (ROOT / "ext" / "ort_api_entries.txt").read_text().splitlines() if line[0] != "#"]
    source, library = tmp_path / "shim.c", tmp_path / f"libonnxruntime.so.{version}"
    source.write_text(SHIM)
    defines = {"A": entries.index(right), "B": entries.index(wrong), "ENTRIES": len(entries), "LIBRARY": f'"{find_library()}"'}
    subprocess.run(["gcc", "-shared", "-fPIC", *(f"-D{k}={v}" for k, v in defines.items()), "-o", str(library), str(source)], check=True)
    code = f"from batchmill.core import ort\ntry: ort.initialise({str(library)!r})\nexcept RuntimeError as error: print('CAUGHT', error)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("CAUGHT") or done.returncode < 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["libm.so.6", "libnone.so"])
def test_a_library_that_is_something_else_is_refused(name: str) -> None:
    code = f"from batchmill.core import ort\ntry: ort.initialise({name!r})\nexcept RuntimeError as error: print('CAUGHT', error)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("CAUGHT")
    assert name in done.stdout


def test_a_library_of_another_version_than_its_name_says_is_refused(tmp_path: Path) -> None:
    library = tmp_path / "libonnxruntime.so.1.19.3"
    shutil.copy(find_library(), library)
    code = f"from batchmill.core import ort\ntry: ort.initialise({str(library)!r})\nexcept RuntimeError as error: print('CAUGHT', error)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "says that its version is" in done.stdout


@NOT_UNDER_TSAN
def test_the_library_keeps_no_book_of_what_is_done_with_it(tmp_path: Path) -> None:
    """ONNX Runtime 1.32 has telemetry, which is on unless it is told otherwise before the library starts."""
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    code = "import os; count = lambda: len(os.listdir('/proc/self/task')); own = count(); from batchmill.core import ort; ort.initialise(); print(count() - own)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, list(tmp_path.rglob("*"))) == ("1\n", [])     # one thread: ours, which makes those of models


def test_providers_are_those_of_the_python_package() -> None:
    assert ort.available_providers() == onnxruntime.get_available_providers()
