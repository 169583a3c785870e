"""The tree of errors. Each says, beside its text, how it is answered: gRPC code, HTTP status, reason.

BatchmillError
├── UsageError          the command line or the environment is wrong          exit code 2
├── ConfigError         a file is wrong: server.yaml, model.yaml              exit code 2, or the model is FAILED
├── StartError          the server cannot start: port taken, no registry      exit code 1
├── UnreachableError    the server a command talks to is not there            exit code 3
├── RemoteError         the server a command talks to refused                 exit code 1
├── ModelError          a version cannot be loaded
│   ├── UnsafeModel     it points outside its folder
│   └── GoldenFailed    it does not reproduce its golden.npz, or that cannot be used
├── RegistryGone        nothing can be loaded from a registry that is not there
├── BadCompression      a compressed body is damaged
├── UnsupportedCompression  it is compressed in a way that is not known here
├── TooLarge            a body is over the server's limit
├── InvalidRequest      the request is wrong
├── InferenceRefused    the data plane refused, or could not run, an inference
├── NotFound            no such model or version
├── Unauthenticated     the key is missing or wrong
├── Forbidden           this caller may not change anything
└── Unsupported         it is not offered
"""

from __future__ import annotations

# gRPC's numbers
INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED, RESOURCE_EXHAUSTED, FAILED_PRECONDITION = 3, 5, 7, 8, 9
UNIMPLEMENTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 12, 13, 14, 16


class BatchmillError(Exception):
    """Anything that is told to a user in one line."""

    code = INTERNAL
    http_status = 500
    reason = "INTERNAL"
    exit_code = 1


class UsageError(BatchmillError):
    """The command line or the environment is wrong."""

    code, http_status, reason, exit_code = INVALID_ARGUMENT, 400, "USAGE", 2


class ConfigError(BatchmillError):
    """A configuration file is wrong. The text names file, line and key."""

    code, http_status, reason, exit_code = FAILED_PRECONDITION, 400, "CONFIG", 2


class StartError(BatchmillError):
    """The server cannot start."""

    reason = "START"


class UnreachableError(BatchmillError):
    """The server that a command talks to does not answer."""

    code, http_status, reason, exit_code = UNAVAILABLE, 503, "UNREACHABLE", 3


class RemoteError(BatchmillError):
    """The server that a command talks to answered with an error."""

    reason = "REMOTE"


class ModelError(BatchmillError):
    """A version cannot be loaded; the server and its other models go on."""

    code, http_status, reason = FAILED_PRECONDITION, 400, "MODEL"


class UnsafeModel(ModelError):
    """A version points outside its folder: a symlink, or external data with an absolute path or `..`."""

    reason = "UNSAFE_MODEL"


class GoldenFailed(ModelError):
    """A version does not reproduce what its golden.npz holds, or that file cannot be used."""

    reason = "GOLDEN_FAILED"

    def __init__(self, text: str) -> None:
        super().__init__(f"golden: {text}")


class RegistryGone(BatchmillError):
    """The registry's folder is not there, or empty, which looks like a mount that is gone; what is loaded serves on."""

    code, http_status, reason = UNAVAILABLE, 503, "REGISTRY_GONE"

    def __init__(self) -> None:
        super().__init__("the registry is gone or empty: nothing can be loaded, and what is loaded serves on")


class BadCompression(BatchmillError):
    """A body or a message that is said to be compressed is damaged or cut."""

    code, http_status, reason = INVALID_ARGUMENT, 400, "BAD_COMPRESSION"


class UnsupportedCompression(BatchmillError):
    """A coding other than gzip and deflate, or more than one."""

    code, http_status, reason = UNIMPLEMENTED, 415, "UNSUPPORTED_COMPRESSION"


class TooLarge(BatchmillError):
    """A body is larger than the server's limit, as it came or decompressed."""

    code, http_status, reason = RESOURCE_EXHAUSTED, 413, "BODY_TOO_LARGE"


class InvalidRequest(BatchmillError):
    """What was asked is wrong. The text says what was given and what is wanted."""

    code, http_status, reason = INVALID_ARGUMENT, 400, "INVALID_REQUEST"


class InferenceRefused(BatchmillError):
    """The data plane refused an inference that was asked for by Python, or it failed; the HTTP status is the data plane's own."""

    reason = "INFERENCE_REFUSED"

    def __init__(self, text: str, http_status: int) -> None:
        super().__init__(text)
        self.http_status = http_status


class NotFound(BatchmillError):
    """No such model or version."""

    code, http_status, reason = NOT_FOUND, 404, "NOT_FOUND"


class Unauthenticated(BatchmillError):
    """A key is configured, and the caller sent none or another."""

    code, http_status, reason = UNAUTHENTICATED, 401, "UNAUTHENTICATED"


class Forbidden(BatchmillError):
    """No key is configured, and the caller is not on this machine."""

    code, http_status, reason = PERMISSION_DENIED, 403, "FORBIDDEN"


class Unsupported(BatchmillError):
    """The protocol has it, this server does not."""

    code, http_status, reason = UNIMPLEMENTED, 501, "UNSUPPORTED"
