"""What is written about the product is what it does."""

import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    copy = tmp_path_factory.mktemp("docs") / "generate.py"     # it writes beside itself
    copy.write_text((DOCS / "generate.py").read_text())
    subprocess.run([sys.executable, copy], check=True)
    return copy.parent


@pytest.mark.parametrize("page", ["reference.md", "errors.md"])
def test_a_page_is_what_the_code_says_today(written, page):
    assert (DOCS / page).read_text() == (written / page).read_text(), "make docs"
