from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import disjoint_base

from batchmill.core.router import Version

@disjoint_base
class RouteEntry:
    name: str
    versions: Sequence[Version]
    standard: Version | None
    labels: Mapping[str, str]
    shares: Sequence[tuple[int, str]]
    rules: Sequence[tuple[bool, str, str, str]]
    shadows: Sequence[tuple[str, int, int, Mapping[str, Any]]]
    generation: int
    fallbacks: Sequence[tuple[Sequence[str], str, str, Sequence[tuple[bytes, bytes, Sequence[int], bytes]], str]]
    def __init__(
        self,
        name: str,
        versions: Sequence[Version],
        standard: Version | None,
        labels: Mapping[str, str] | None = None,
        *,
        shares: Sequence[tuple[int, str]] = ...,
        rules: Sequence[tuple[bool, str, str, str]] = ...,
        shadows: Sequence[tuple[str, int, int, Mapping[str, Any]]] = ...,
        generation: int = 0,
        fallbacks: Sequence[tuple[Sequence[str], str, str, Sequence[tuple[bytes, bytes, Sequence[int], bytes]], str]] = ...,
    ) -> None: ...
