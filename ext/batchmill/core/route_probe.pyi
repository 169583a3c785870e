from typing_extensions import disjoint_base

from batchmill.core.reactor import Server

@disjoint_base
class Passage:
    def __new__(cls, opening: bytes) -> Passage: ...
    def ask(self, server: Server, requests: list[bytes], count: int) -> None: ...
