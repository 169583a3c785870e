"""Files and settings that a load call brings: checked, written beside the models, and put in their place by renames.

A registry holds `.upload-<random>/` while that goes on: `after/<model>` is what shall be there, `before/<model>` what it takes
the place of. Names that begin with a dot are no models, so nothing looks at it; whoever writes it holds a lock on it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from batchmill.backends.onnx_file import external_locations
from batchmill.errors import ConfigError, InvalidUpload, ModelError, StorageFailed, Unsupported
from batchmill.logs import Log
from batchmill.registry import layout, model_config
from batchmill.registry.upload_config import SETTINGS, settings_file

log = Log(__name__)
MODEL, GOLDEN = "model.onnx", "golden.npz"
MAX_FILES = 1000  # of one call: a model with more of them is no case for an upload
MAX_NAME_BYTES = 200  # file systems end at 255
PART = 1 << 20  # characters of base64 at a time, so that other threads get their turn
_STAGE = ".upload-"
_FILE = re.compile(r"file:([1-9][0-9]{0,18})/([^/\\\x00-\x1f\x7f]+)", re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Upload:
    """files: content by version and name, as bytes or as base64. settings: name and text of a file; None: those that are there stay."""

    model: str
    files: dict[int, dict[str, bytes | str]] = field(default_factory=dict)
    settings: tuple[str, str] | None = None


def parsed(model: str, parameters: Mapping[str, object]) -> Upload:
    """What a load call asks for: `config`, a JSON text, and `file:<version>/<name>`. InvalidUpload names the parameter that is wrong."""
    if not layout.is_model_name(model):
        wanted = "at most 200 characters, no dot first, no / \\ @ or control characters"
        raise InvalidUpload(f"model {model[:100]!r}: no name that a model can have: {wanted}")
    upload = Upload(model)
    if len(parameters) > MAX_FILES:
        raise InvalidUpload(f"{len(parameters)} parameters given, at most {MAX_FILES} wanted")
    for name, value in parameters.items():
        if name != "config":
            version, file = checked_name(name)
            if not isinstance(value, (bytes, str)):
                raise InvalidUpload(f"{name[:100]!r}: the file's bytes wanted (REST: as base64)")
            upload.files.setdefault(version, {})[file] = value
    for version, files in upload.files.items():
        if MODEL not in files:
            raise InvalidUpload(f"version {version}: 'file:{version}/{MODEL}' is missing")
    config = parameters.get("config")
    if config is None:
        raise InvalidUpload("'config' is missing: a JSON object wanted beside files; an empty one keeps the settings that are there")
    if not isinstance(config, str):
        raise InvalidUpload("'config': a text of JSON wanted")
    return Upload(model, upload.files, settings_file(config, model))


def checked_name(parameter: str) -> tuple[int, str]:
    """Version and name of a file's parameter."""
    match = _FILE.fullmatch(parameter)
    if not match or match[2].startswith(".") or len(os.fsencode(match[2])) > MAX_NAME_BYTES:
        wanted = f"'config' or 'file:<version>/<name>' wanted, with a name of at most {MAX_NAME_BYTES} bytes"
        raise InvalidUpload(f"parameter {parameter[:100]!r}: {wanted}")
    return int(match[1]), match[2]


class Staged:
    """An upload on its way into a registry. write(), publish(), perhaps undo(), and close() in any case; the two in the middle do not wait."""

    def __init__(self, registry: Path, upload: Upload) -> None:
        if not registry.is_dir():
            raise Unsupported("a single file is served here: uploads need a registry directory")
        self._upload = upload
        self._target = registry / upload.model
        self._stage = registry / f"{_STAGE}{secrets.token_hex(8)}"
        self._before = self._stage / "before" / upload.model
        self._after = self._stage / "after" / upload.model
        self._published: list[str] = []  # names in the model's folder
        self._is_new = False  # the folder itself was published
        self._lock = -1

    def write(self) -> None:
        """Everything, to the disk; checks what can be checked by then."""
        with storage():
            self._stage.mkdir()
            self._lock = os.open(self._stage, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with contextlib.suppress(OSError):  # a file system without locks: nobody will clear up there either
                fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._before.mkdir(parents=True)
            self._after.mkdir(parents=True)
            if self._upload.settings:
                name, text = self._upload.settings
                write_file(self._after / name, text.encode())
            for version, files in self._upload.files.items():
                self._write_version(self._after / str(version), files)
            try:
                model_config.read_folder(self._after, self._upload.model)
            except ConfigError as error:
                raise InvalidUpload(f"'config', as {told(error, self._stage)}") from None

    def _write_version(self, folder: Path, files: Mapping[str, bytes | str]) -> None:
        folder.mkdir()
        write_file(folder / MODEL, files[MODEL])
        try:
            known = {MODEL, GOLDEN, *external_locations(folder / MODEL)}
        except ModelError as error:
            raise InvalidUpload(told(error, self._stage)) from None
        for name, content in files.items():
            if name not in known:
                raise InvalidUpload(f"'file:{folder.name}/{name[:100]}': {MODEL}, {GOLDEN} or external data that {MODEL} names wanted")
            if name != MODEL:
                write_file(folder / name, content)

    def publish(self) -> None:
        """Puts it in its place. All of it, or nothing of it."""
        self._check_target()
        try:
            with storage():
                if not self._target.is_dir():
                    names = sorted(os.listdir(self._after))
                    os.rename(self._after, self._target)
                    self._published, self._is_new = names, True
                    return
                for name in SETTINGS if self._upload.settings else ():
                    self._set_aside(name)
                for name in sorted(os.listdir(self._after)):
                    self._set_aside(name)
                    os.rename(self._after / name, self._target / name)
                    self._published.append(name)
        except StorageFailed:
            self.undo()
            raise

    @property
    def is_published(self) -> bool:
        return bool(self._published)

    def _check_target(self) -> None:
        """Nothing is written through a link, which may lead anywhere."""
        if self._target.is_symlink() or (self._target.exists() and not self._target.is_dir()):
            raise InvalidUpload(f"model {self._upload.model!r}: its folder in the registry is a link, or none: nothing can be uploaded there")
        if not self._upload.files and not self._target.is_dir():
            raise InvalidUpload(f"model {self._upload.model!r}: the registry has none of that name; a config alone is for one that is there")
        for version in self._upload.files:
            place = self._target / str(version)
            if place.is_symlink() or (place.exists() and not place.is_dir()):
                raise InvalidUpload(f"version {version} of {self._upload.model!r} is a link or a file in the registry: it is not replaced")

    def _set_aside(self, name: str) -> None:
        if os.path.lexists(self._target / name):
            os.rename(self._target / name, self._before / name)

    def undo(self) -> None:
        """Takes it back, and puts back what was there."""
        with storage():
            self._after.mkdir(parents=True, exist_ok=True)  # a new model's has become its folder
            for name in reversed(self._published):
                if os.path.lexists(self._target / name):
                    os.rename(self._target / name, self._after / name)
            self._published.clear()
            put_back(self._before, self._target)
            if self._is_new:
                with contextlib.suppress(OSError):  # somebody has put something else there
                    os.rmdir(self._target)

    def close(self) -> None:
        """Removes what is not published."""
        shutil.rmtree(self._stage, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


@contextlib.contextmanager
def storage() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageFailed(f"the registry cannot be written: {error.strerror or 'it fails'}") from None


def put_back(before: Path, target: Path, but: Collection[str] = ()) -> None:
    """What was set aside and has no successor."""
    for name in os.listdir(before):
        if name not in but and not os.path.lexists(target / name):
            os.rename(before / name, target / name)


def write_file(path: Path, content: bytes | str) -> None:
    """Anew, and to the disk: a rename must not outlive what it publishes. InvalidUpload when a text is no base64."""
    with open(path, "xb") as file:
        if isinstance(content, bytes):
            file.write(content)
        else:
            for part in decoded(content, path):
                file.write(part)
        file.flush()
        os.fsync(file.fileno())


def decoded(text: str, path: Path) -> Iterator[bytes]:
    problem = InvalidUpload(f"'file:{path.parent.name}/{path.name[:100]}': base64 wanted (RFC 4648, padded, without line breaks)")
    if len(text) % 4 or "=" in text[:-2]:
        raise problem
    for start in range(0, len(text), PART):
        part = text[start : start + PART]
        if not _BASE64.fullmatch(part):
            raise problem
        try:
            yield base64.b64decode(part)
        except binascii.Error:
            raise problem from None


def told(error: Exception, stage: Path) -> str:
    """An error's text without the folders of this machine."""
    return re.sub(rf"{re.escape(str(stage))}/after/[^/]+/", "", str(error))


def clear_up(registry: Path) -> None:
    """What uploads left behind that were under way when their server was ended: what they had set aside is put back."""
    for stage in registry.glob(f"{_STAGE}*") if registry.is_dir() else ():
        with contextlib.suppress(OSError):
            lock = os.open(stage, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for before in (stage / "before").glob("*"):
                    waiting = any((stage / "after" / before.name / name).exists() for name in SETTINGS)
                    put_back(before, registry / before.name, () if waiting else SETTINGS)  # each of the two files succeeds either
                shutil.rmtree(stage)
                log.warning("upload_cleared", path=stage.name)
            finally:
                os.close(lock)
