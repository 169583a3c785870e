"""What lies in a registry directory. Reads names and inodes only; opens nothing."""

from __future__ import annotations

import errno
import os
import re
import stat
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from batchmill.errors import StartError

_VERSION = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
_NAME = re.compile(r"[^/\\\x00-\x1f\x7f@]{1,200}")
_PASSING = (".tmp", ".part", ".swp", "~")
_MAX_FILES = 10_000  # of one version that a stamp looks at

Stamp = tuple[tuple[str, int, int, int, int], ...]
"""Path, size, mtime, ctime and inode of every file of a folder: it changes when any of them does. Compared for equality alone."""


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """One model: its version folders by number, and what was ignored in it and why. problem: why the folder could not be read."""

    name: str
    path: Path
    versions: dict[int, Path] = field(default_factory=dict)  # number -> model.onnx
    notes: tuple[str, ...] = ()
    stamps: dict[int, Stamp] = field(default_factory=dict)
    config: Stamp = ()  # of model.yaml, or of config.pbtxt where there is none
    problem: str = ""


class Scan(NamedTuple):
    models: list[ModelFolder]
    notes: tuple[str, ...] = ()  # what was ignored beside them, and why


def scan(registry: Path) -> Scan:
    """The models of a registry directory, or the one model of a single .onnx file. StartError when there is neither."""
    if registry.is_file():
        if registry.suffix != ".onnx":
            raise StartError(f"{registry}: a registry directory or a .onnx file wanted")
        return Scan([single_file(registry.absolute())])
    if not registry.is_dir():
        raise StartError(f"{registry}: no such registry directory or file")
    models, notes = [], []
    try:
        entries, root = listed(registry), os.path.realpath(registry)
    except OSError as error:
        raise StartError(f"{registry}: {error.strerror}") from None
    for entry in entries:
        try:
            if is_passing(entry.name) or not is_folder(entry):
                if entry.name.endswith(".onnx"):
                    notes.append(f"file {entry.name!r} ignored: a model is a folder, such as {entry.name.removesuffix('.onnx')}/1/model.onnx")
                continue
            if is_model_name(entry.name):
                models.append(scan_model(registry / entry.name, root, is_link=entry.is_symlink()))
            else:
                wanted = "at most 200 characters, in UTF-8, and no @ and no control characters"
                notes.append(f"folder {entry.name!r} ignored: a model's name has {wanted}")
        except FileNotFoundError:
            continue  # removed just now
        except OSError as error:
            models.append(ModelFolder(entry.name, registry / entry.name, problem=f"its folder cannot be read: {error.strerror}"))
    return Scan(models, tuple(notes))


def listed(folder: str | Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def is_passing(name: str) -> bool:
    """Hidden, or a name of what is being written."""
    return name.startswith(".") or name.endswith(_PASSING)


def is_model_name(name: str) -> bool:
    """Whether a folder of that name is a model, and can be made."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # bytes of a folder's name that are no UTF-8: no protocol could ask for it
        return False
    return not is_passing(name) and _NAME.fullmatch(name) is not None and size <= 255


def single_file(path: Path) -> ModelFolder:
    """The model of one file: <model>/<version>/model.onnx says its name and version, any other file is version 1 of its own name."""
    version, model = path.parent, path.parent.parent
    if path.name == "model.onnx" and _VERSION.fullmatch(version.name) and _NAME.fullmatch(model.name):
        return ModelFolder(model.name, model, {int(version.name): path}, (), {int(version.name): stamp_of(version)}, config_stamp(model))
    return ModelFolder(path.stem, path.parent, {1: path}, (), {1: stamp_of(path)}, config_stamp(path.parent))


def files_of(model: Path) -> Path:
    """Where the files of a version lie, by the path of its model: its folder, or the one file that is served alone."""
    return model.parent if model.name == "model.onnx" and _VERSION.fullmatch(model.parent.name) else model


def scan_model(folder: Path, root: str, *, is_link: bool = False) -> ModelFolder:
    """root: of the registry, without links. is_link: the folder is one. Text in place of Path where it can be: a server with many models and
    one that is busy spend most of a look here.
    """
    versions: dict[int, Path] = {}
    stamps: dict[int, Stamp] = {}
    notes: list[str] = []
    if os.path.isfile(f"{folder}/config.pbtxt") and os.path.isfile(f"{folder}/model.yaml"):
        notes.append("config.pbtxt is not read, because there is a model.yaml")
    for entry in listed(folder):
        if entry.name.startswith(".") or not is_folder(entry):
            if entry.name == "model.onnx" and _VERSION.fullmatch(folder.name):
                where = folder.parent
                notes.append(f"{folder.name!r} looks like a version, and {where} like a model: a registry is the folder above its models' folders")
            elif entry.name.endswith(".onnx"):
                notes.append(f"file {entry.name!r} ignored: a version is a folder, such as {folder.name}/1/model.onnx")
            continue
        model = f"{entry.path}/model.onnx"
        if not _VERSION.fullmatch(entry.name):
            notes.append(f"folder {entry.name!r} ignored: a version is a number without leading zeros")
        elif (is_link or entry.is_symlink() or os.path.islink(model)) and not is_inside(model, root):
            notes.append(f"version {entry.name} ignored: it points outside of the registry")
        elif not is_there(model):
            notes.append(f"version {entry.name} ignored: no model.onnx in it")
        else:
            versions[int(entry.name)] = folder / entry.name / "model.onnx"
            stamps[int(entry.name)] = stamp_of(entry.path)
    return ModelFolder(folder.name, folder, versions, tuple(notes), stamps, config_stamp(folder))


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Or a link to one; one that leads in a circle is none."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise


def is_inside(path: str, root: str) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(root)  # Path.resolve() raises where links lead in a circle


def is_there(model: str) -> bool:
    """A file, or what may not be looked at: that says so when it is loaded."""
    try:
        return stat.S_ISREG(os.stat(model).st_mode)
    except PermissionError:
        return True
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise


def config_stamp(folder: Path) -> Stamp:
    return stamp_of(f"{folder}/model.yaml") or stamp_of(f"{folder}/config.pbtxt")


def stamp_of(path: str | Path) -> Stamp:
    """The stamp of a folder and all below it, or of one file; empty when there is nothing. Links to folders below are not followed."""
    found: list[tuple[str, int, int, int, int]] = []
    waiting = [str(path)]
    while waiting and len(found) < _MAX_FILES:
        at = waiting.pop()
        try:
            with os.scandir(at) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        found.append(line_of(entry.path, entry.stat()))
        except NotADirectoryError:
            found.append(line_of(at, os.stat(at)))
        except OSError:
            continue  # gone or not readable: what is left of the stamp differs from that of a whole folder
    return tuple(sorted(found))


def line_of(path: str, of: os.stat_result) -> tuple[str, int, int, int, int]:
    return path, of.st_size, of.st_mtime_ns, of.st_ctime_ns, of.st_ino


def version_key(name: str, number: str, stamp: Stamp) -> str:
    """By which a version and its files are remembered: the same after they were mounted anew."""
    files = repr([line[:3] for line in stamp])  # path, size and mtime
    return f"{name}/{number} {zlib.crc32(files.encode(errors='surrogateescape')):08x}"


def is_unchanged(stamp: Stamp) -> bool:
    """Whether the files of a stamp are still what they were."""
    try:
        return all(line_of(line[0], os.stat(line[0])) == line for line in stamp)
    except OSError:
        return False
