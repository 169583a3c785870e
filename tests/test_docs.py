"""What is written about the product is what it does."""

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_the_reference_is_what_the_code_says_today(tmp_path):
    copy = tmp_path / "generate.py"     # it writes beside itself
    copy.write_text((DOCS / "generate.py").read_text())
    subprocess.run([sys.executable, copy], check=True)
    assert (DOCS / "reference.md").read_text() == (tmp_path / "reference.md").read_text(), "make docs"
