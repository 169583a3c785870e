"""Where the fields of a protobuf text stand. It judges nothing: what it cannot follow it leaves to the parser."""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass

_TOKEN = re.compile(r"""(?P<space>\s+|\#[^\n]*)|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[\w.+-]+|.""", re.S)
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_CLOSING = {"{": "}", "<": ">"}
_MAX_DEPTH = 32  # the format's own messages nest five deep


@dataclass(slots=True)
class Field:
    """path: its name and those of the fields around it. place: line:column, from 1. start, end: in the text. value: its last token."""

    path: tuple[str, ...]
    place: str
    start: int
    end: int = 0
    value: str = ""

    @property
    def name(self) -> str:
        return self.path[-1]

    @property
    def dotted(self) -> str:
        return ".".join(self.path)


class NotFollowed(Exception):
    """The text is no protobuf text, or one that nests too deep."""


def scan(text: str) -> list[Field]:
    """Every field, in the order of the text: a field before those inside of it. Ends where it cannot follow."""
    scanner = Scanner(text)
    try:
        scanner.fields((), "")
    except NotFollowed:
        scanner.found = [field for field in scanner.found if field.end]
    return scanner.found


class Scanner:
    def __init__(self, text: str) -> None:
        self.lines = [0, *(match.end() for match in re.finditer("\n", text))]  # where each begins
        self.tokens = [(match.group(), match.start()) for match in _TOKEN.finditer(text) if not match.group("space")]
        self.at = 0
        self.found: list[Field] = []

    def peek(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def take(self) -> tuple[str, int]:
        if self.at == len(self.tokens):
            raise NotFollowed
        self.at += 1
        return self.tokens[self.at - 1]

    def fields(self, path: tuple[str, ...], closing: str) -> None:
        """closing: the token that ends them; empty: the end of the text."""
        if len(path) > _MAX_DEPTH:
            raise NotFollowed
        while self.peek() != closing:
            self.field(path)
            while self.peek() in (",", ";"):
                self.take()

    def field(self, path: tuple[str, ...]) -> None:
        name, start = self.take()
        if not _NAME.fullmatch(name):
            raise NotFollowed
        line = bisect.bisect_right(self.lines, start)
        field = Field((*path, name), f"{line}:{start - self.lines[line - 1] + 1}", start)
        self.found.append(field)
        if self.peek() == ":":
            self.take()
        if self.peek() == "[":
            self.take()
            while self.peek() != "]":
                self.value(field.path)
                if self.peek() == ",":
                    self.take()
            self.take()
        else:
            self.value(field.path)
        field.value, last = self.tokens[self.at - 1]
        field.end = last + len(field.value)

    def value(self, path: tuple[str, ...]) -> None:
        first, _ = self.take()
        if first in _CLOSING:
            self.fields(path, _CLOSING[first])
            self.take()
        elif first[0] in "\"'":
            while self.peek()[:1] in ('"', "'"):  # neighbouring texts are one
                self.take()
        elif first == "-":
            self.take()
