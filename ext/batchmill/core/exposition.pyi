from collections.abc import Sequence

from batchmill.core.router import Version

def render(versions: Sequence[Version], *, triton: bool = False) -> bytes: ...
