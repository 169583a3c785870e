from collections.abc import Sequence
from typing import TypedDict, type_check_only

from typing_extensions import disjoint_base

from batchmill.core.bridge import Bridge
from batchmill.core.router import Version

@type_check_only
class ServerStats(TypedDict):
    connections: int
    in_flight: int
    pending_bytes: int
    refused: dict[str, int]
    requests: dict[str, int]

@disjoint_base
class Server:
    def __new__(
        cls,
        *,
        io_threads: int,
        executor_threads: int,
        max_body_bytes: int,
        max_response_bytes: int,
        max_pending_bytes: int,
        max_connections: int,
        max_streams: int,
        max_header_bytes: int,
        header_timeout_ms: int,
        idle_timeout_ms: int,
        min_body_rate: int,
        max_resets: int,
        max_resets_per_s: int,
        busy_status: int,
        cold_calls: int,
        cold_bytes: int,
    ) -> Server: ...
    @property
    def bridge(self) -> Bridge: ...
    def listen(self, host: str, port: int) -> int: ...
    def listen_unix(self, path: str) -> None: ...
    def start(self) -> None: ...
    def publish(self, table: Sequence[tuple[str, Sequence[Version], Version | None, dict[str, str]]]) -> None: ...
    def release(self, version: Version) -> bool: ...
    def await_generation(self) -> None: ...
    def set_ready(self, ready: bool) -> None: ...
    def install_signals(self) -> None: ...
    def signal_fileno(self) -> int: ...
    def signal_count(self) -> int: ...
    def drain(self, final: bool = False) -> None: ...
    def idle(self) -> bool: ...
    def stop(self) -> None: ...
    def stats(self) -> ServerStats: ...
