"""Compressed bodies and messages of the calls that Python answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from batchmill.core.compression import decompressed
from batchmill.errors import BadCompression, TooLarge, UnsupportedCompression

LIMIT_BYTES = 64 << 20  # that of --max-body-mib


async def plain(data: bytes, headers: Iterable[tuple[bytes, bytes]], name: bytes, limit_bytes: int) -> bytes:
    """data without the coding that the header `name` tells. Raises BadCompression, TooLarge, UnsupportedCompression."""
    codings = [value.decode("latin-1").strip() for header, value in headers if header == name]
    if not codings or codings == ["identity"]:
        return data
    if len(codings) > 1:
        raise UnsupportedCompression(f"{name.decode()}: given twice")
    try:  # on a thread: it may take a tenth of a second, without the GIL
        return await asyncio.to_thread(decompressed, data, codings[0], limit_bytes)
    except LookupError:
        raise UnsupportedCompression(f"{name.decode()}: gzip, deflate or identity wanted") from None
    except OverflowError as error:
        raise TooLarge(str(error)) from None
    except ValueError as error:
        raise BadCompression(str(error)) from None
