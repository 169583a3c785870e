"""What a version's files are, by hash, for who asks later which ones they were."""

from __future__ import annotations

import os
from pathlib import Path

from batchmill.registry import layout
from batchmill.registry.layout import Stamp
from batchmill.registry.status import VersionStatus

FILES_MAX = 100


def digests(version: VersionStatus) -> dict[str, str]:
    """sha256 by path in the model's folder, of the files as they were loaded; without those that have changed since. Takes a while."""
    if version.path is None:
        return {}
    above, stamp = layout.files_of(version.path).parent, version.stamp
    found = {}
    for line in stamp[:FILES_MAX]:
        path = Path(line[0]).absolute()
        digest = version.file_hash() if path == version.path else digest_of(path, (line,))
        if digest:
            found[os.path.relpath(path, above)] = digest
    return found


def digest_of(path: Path, stamp: Stamp) -> str:
    """Empty: it is not the file of that stamp any more."""
    import hashlib

    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
    return found if layout.is_unchanged(stamp) else ""
