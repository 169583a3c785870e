"""Asks a server with every client and writes docs/conformance.md: `make conformance`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from e2e.server import ServerProcess

from .columns import LOCAL, cells
from .foreign import LANGUAGES, Language
from .served import serve
from .table import PAGE, Result, page


def result_of(language: Language, server: ServerProcess) -> Result:
    client = language.client()
    if missing := language.missing():
        return Result(client, {}, f"not run: {', '.join(missing)} not found")
    print(f"{client.name}: building", flush=True)
    if wrong := language.build():
        print(wrong, file=sys.stderr)
        return Result(client, dict.fromkeys(["build"], "failed: see above"), "not run: its build failed")
    return Result(client, cells(client, server))


def main() -> int:
    names = [client.name for client in LOCAL] + [language.folder for language in LANGUAGES]
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__)
    parser.add_argument("--only", help=f"some of {', '.join(names)}, with commas; nothing is written then")
    wanted = parser.parse_args().only
    chosen = wanted.split(",") if wanted else names
    if unknown := set(chosen) - set(names):
        parser.error(f"no such client: {', '.join(sorted(unknown))}")
    results = []
    with tempfile.TemporaryDirectory(prefix="batchmill-conformance-") as folder, serve(Path(folder)) as server:
        for client in LOCAL:
            if client.name in chosen:
                results.append(Result(client, cells(client, server)))
                show(results[-1])
        for language in LANGUAGES:
            if language.folder in chosen:
                results.append(result_of(language, server))
                show(results[-1])
    if not wanted:
        PAGE.write_text(page(results))
        print(f"written: {PAGE.relative_to(Path.cwd()) if PAGE.is_relative_to(Path.cwd()) else PAGE}")
    return 1 if any(result.failed() for result in results) else 0


def show(result: Result) -> None:
    counted = {kind: sum(outcome == kind for outcome in result.cells.values()) for kind in ("ok", "–")}
    print(f"{result.client.name}: {result.not_run or '{ok} ok, {–} without such a call'.format(**counted)}", flush=True)
    for failure in result.failed():
        print(f"  {failure}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
