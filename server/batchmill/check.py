"""`batchmill check`: what would be served of a registry and how, without serving it. Each version is loaded and proved in a child process."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from batchmill.errors import BatchmillError
from batchmill.registry import layout, loader, model_config
from batchmill.registry.layout import ModelFolder, Stamp
from batchmill.registry.policy import problem_of
from batchmill.registry.probe import Probe
from batchmill.registry.reconcile import Kept, decide
from batchmill.registry.settings import ModelSettings
from batchmill.remote import table


@dataclass(frozen=True, slots=True)
class Line:
    """What is to be told of one version, or, without a version, of a model. state: ready, failed, or note for what is ignored."""

    model: str
    version: str
    state: str
    text: str


def run(registry: Path, timeout_secs: float, as_json: bool) -> int:
    """Prints what is found; 1 when something that is wanted would not be served."""
    lines = []
    probe = Probe(timeout_secs)
    try:
        found = layout.scan(registry)
        lines += [Line("", "", "note", note) for note in found.notes]
        for folder in found.models:
            lines += checked(folder, probe)
    finally:
        probe.close()
    if as_json:
        print(json.dumps([asdict(line) for line in lines]))
    elif not lines:
        print(f"{registry}: no models")
    else:
        print(table(["MODEL", "VERSION", "STATE", ""], [[line.model, line.version or "-", line.state, line.text] for line in lines]))
    return int(any(line.state == "failed" for line in lines))


def checked(folder: ModelFolder, probe: Probe) -> list[Line]:
    """A wanted version that fails is replaced by one before it, as the server would."""
    lines = [Line(folder.name, "", "note", note) for note in folder.notes]
    if folder.problem:
        return [*lines, Line(folder.name, "", "failed", folder.problem)]
    try:
        settings = model_config.read_folder(folder.path, folder.name)
    except (BatchmillError, OSError) as error:
        return [*lines, Line(folder.name, "", "failed", str(error))]
    lines += [Line(folder.name, "", "note", note) for note in loader.notes_on(settings, folder)]
    if problem := problem_of(folder.versions, settings.versions):
        lines.append(Line(folder.name, "", "failed", problem))
    labelled = {int(number) for number in settings.labels.values()}
    present: dict[int, Stamp] = dict.fromkeys(folder.versions, ())
    tried: dict[int, Line] = {}
    kept: dict[int, Kept] = {}
    while load := decide(present, kept, (), settings.versions, labelled).load:
        for number in load:
            tried[number] = examined(folder, number, settings, probe)
            kept[number] = Kept((), tried[number].state == "ready")
    return [*lines, *(tried[number] for number in sorted(tried))]


def examined(folder: ModelFolder, number: int, settings: ModelSettings, probe: Probe) -> Line:
    finding = probe.examine(folder.name, str(number), folder.versions[number], settings)
    if finding.reason:
        return Line(folder.name, str(number), "failed", finding.reason)
    assert finding.proof
    size = f"batches of up to {settings.tuning.max_batch_size} rows" if finding.proof.batched else "not batched"
    return Line(folder.name, str(number), "ready", f"{size}: {finding.proof.reason}")
