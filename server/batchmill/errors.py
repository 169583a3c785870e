"""The tree of errors. Each says, beside its text, how it is answered: gRPC code, HTTP status, reason; and what the caller can do.

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
├── StorageFailed       the registry cannot be written
├── AuditUnreadable     the audit trail cannot be read or written
├── InvalidRequest      what a call says is wrong
│   ├── InvalidUpload   a file or a config that is uploaded
│   └── UploadsOff      uploads are not allowed
├── UploadUnderWay      another call uploads this model
├── BadCompression      a compressed body is damaged
├── UnsupportedCompression  it is compressed in a way that is not known here
├── TooLarge            a body is over the server's limit
├── InferenceRefused    the data plane refused, or could not run, an inference
├── NotReady            the model is known, and none of its versions is ready
├── NotFound            no such model or version
├── UnknownCall         no such path or RPC
├── WrongMethod         the path is there, for another method
├── Unauthenticated     the key is missing or wrong
├── Forbidden           this caller may not change anything
├── Unsupported         it is not offered
├── ShuttingDown        the server ends
└── InternalError       a fault of ours

What the data plane answers never becomes an exception; DATA_PLANE lists it. docs/errors.md is written from both.
"""

from __future__ import annotations

from typing import NamedTuple

# gRPC's numbers
CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, PERMISSION_DENIED = 1, 3, 4, 5, 7
RESOURCE_EXHAUSTED, FAILED_PRECONDITION, ABORTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 8, 9, 10, 12, 13, 14, 16


class BatchmillError(Exception):
    """Anything that is told to a user in one line."""

    code = INTERNAL
    http_status = 500
    reason = "INTERNAL"
    exit_code = 1
    advice = ""


class UsageError(BatchmillError):
    """The command line or the environment is wrong."""

    code, http_status, reason, exit_code = INVALID_ARGUMENT, 400, "USAGE", 2
    advice = "Correct what the line names; `--help` lists what there is."


class ConfigError(BatchmillError):
    """A configuration file is wrong. The text names file, line and key."""

    code, http_status, reason, exit_code = FAILED_PRECONDITION, 400, "CONFIG", 2
    advice = "Correct the file. A model's is read again by itself, the server's at a start or by SIGHUP."


class StartError(BatchmillError):
    """The server cannot start: its port is taken, its registry is not there, another server has its state."""

    reason = "START"
    advice = "Correct what the line names, and start again."


class UnreachableError(BatchmillError):
    """The server that a command talks to does not answer."""

    code, http_status, reason, exit_code = UNAVAILABLE, 503, "UNREACHABLE", 3
    advice = "Start it, or name another by `--url`."


class RemoteError(BatchmillError):
    """The server that a command talks to answered with an error."""

    reason = "REMOTE"
    advice = "Read that error: it is one of this page."


class ModelError(BatchmillError):
    """A version cannot be loaded; the server and its other models go on."""

    code, http_status, reason = FAILED_PRECONDITION, 400, "MODEL"
    advice = "Repair the version's files and send the load call again."


class UnsafeModel(ModelError):
    """A version points outside its folder: a symlink, or external data with an absolute path or `..`."""

    reason = "UNSAFE_MODEL"
    advice = "Put all that the version needs into its folder."


class GoldenFailed(ModelError):
    """A version does not reproduce what its golden.npz holds, or that file cannot be used."""

    reason = "GOLDEN_FAILED"
    advice = "Find out which of the two is right; `golden` of model.yaml sets the tolerances."

    def __init__(self, text: str) -> None:
        super().__init__(f"golden: {text}")


class RegistryGone(BatchmillError):
    """The registry's folder is not there, or empty, which looks like a mount that is gone; what is loaded serves on."""

    code, http_status, reason = UNAVAILABLE, 503, "REGISTRY_GONE"
    advice = "Mount it again; until then loads are in vain."

    def __init__(self) -> None:
        super().__init__("the registry is gone or empty: nothing can be loaded, and what is loaded serves on")


class StorageFailed(BatchmillError):
    """The registry cannot be written: no space, no right, or a disk that fails."""

    code, http_status, reason = UNAVAILABLE, 503, "STORAGE"
    advice = "Make room or give the right, then send the upload again; nothing of it is left."


class AuditUnreadable(BatchmillError):
    """The audit trail cannot be read or written just now."""

    code, http_status, reason = UNAVAILABLE, 503, "AUDIT_UNREADABLE"
    advice = "Look in the log: a disk may be full, or the state file damaged. Serving goes on."


class InvalidRequest(BatchmillError):
    """A path, a parameter or a body of a call is wrong. The text says what was given and what is wanted."""

    code, http_status, reason = INVALID_ARGUMENT, 400, "INVALID_REQUEST"
    advice = "Correct the call; sent again as it is, it fails again."


class InvalidUpload(InvalidRequest):
    """A file or the config of an upload is none that the registry can take; nothing of it was written."""

    reason = "INVALID_UPLOAD"
    advice = "Correct the parameter that the text names."


class UploadsOff(InvalidRequest):
    """A load call brings files or a config, and the server does not take any."""

    reason = "UPLOADS_OFF"
    advice = "Start the server with `--allow-upload`, or put the files into the registry and load without parameters."


class UploadUnderWay(BatchmillError):
    """Another call uploads the same model just now."""

    code, http_status, reason = ABORTED, 409, "UPLOAD_UNDER_WAY"
    advice = "Wait until it has ended, then send yours."


class BadCompression(BatchmillError):
    """A body or a message that is said to be compressed is damaged or cut."""

    code, http_status, reason = INVALID_ARGUMENT, 400, "BAD_COMPRESSION"
    advice = "Compress it as the header says, once."


class UnsupportedCompression(BatchmillError):
    """A coding other than gzip and deflate, or more than one."""

    code, http_status, reason = UNIMPLEMENTED, 415, "UNSUPPORTED_COMPRESSION"
    advice = "Send it with gzip, deflate (zlib) or plain."


class TooLarge(BatchmillError):
    """A body is larger than `--max-body-mib` once it is decompressed."""

    code, http_status, reason = RESOURCE_EXHAUSTED, 413, "BODY_TOO_LARGE"
    advice = "Send fewer rows at once, or raise the limit."


class InferenceRefused(BatchmillError):
    """The data plane refused an inference that came by TensorFlow Serving's paths, or it failed; the HTTP status is the data plane's own."""

    reason = "INFERENCE_REFUSED"
    advice = "See what the data plane answers, by the HTTP status."

    def __init__(self, text: str, http_status: int = 500) -> None:
        super().__init__(text)
        self.http_status = http_status


class NotReady(BatchmillError):
    """The model is known, and none of its versions is ready; or the server still loads its models."""

    code, http_status, reason = UNAVAILABLE, 503, "NOT_READY"
    advice = "Come back later; the index has the reason."


class NotFound(BatchmillError):
    """No such model, or no such version that is ready."""

    code, http_status, reason = NOT_FOUND, 404, "NOT_FOUND"
    advice = "Look into the repository index: it has all versions, with the reason where one is not served."


class UnknownCall(BatchmillError):
    """No such path, or no such RPC."""

    code, http_status, reason = UNIMPLEMENTED, 404, "UNKNOWN_CALL"
    advice = "`GET /docs` lists the paths, reflection the RPCs."


class WrongMethod(BatchmillError):
    """The path is there, but not for this method; the `Allow` header names those it has."""

    code, http_status, reason = UNIMPLEMENTED, 405, "WRONG_METHOD"
    advice = "Use a method of the `Allow` header."


class Unauthenticated(BatchmillError):
    """A key is configured, and the caller sent none or another."""

    code, http_status, reason = UNAUTHENTICATED, 401, "UNAUTHENTICATED"
    advice = "Send the key, as `Authorization: Bearer KEY`."


class Forbidden(BatchmillError):
    """No key is configured, and the caller is not on this machine."""

    code, http_status, reason = PERMISSION_DENIED, 403, "FORBIDDEN"
    advice = "Call from the server's machine, without a proxy; or start it with `--admin-key-file` or `--admin-open`."


class Unsupported(BatchmillError):
    """The protocol has it, this server does not."""

    code, http_status, reason = UNIMPLEMENTED, 501, "UNSUPPORTED"
    advice = "Do without; the text says what there is instead."


class ShuttingDown(BatchmillError):
    """The server drains: it answers what it has accepted, and takes no more."""

    code, http_status, reason = UNAVAILABLE, 503, "SHUTTING_DOWN"
    advice = "Ask another server, or come back after `Retry-After`."

    def __init__(self) -> None:
        super().__init__("the server is shutting down")


class InternalError(BatchmillError):
    """A fault of the server itself, whose log has the rest."""

    advice = "Report it, with what the log says."

    def __init__(self) -> None:
        super().__init__("internal error")


class Refusal(NamedTuple):
    """What the data plane answers. http_status: of its REST form; 0: there is none. when, advice: as sentences."""

    reason: str
    code: int
    http_status: int
    when: str
    advice: str


_AGAIN = "Correct the request; sent again as it is, it fails again."
_WAIT = "Come back after `Retry-After`, with some jitter."
_MEMORY = "Send less at once; the server needs more memory, or a smaller `--max-pending-mib`."
DATA_PLANE = (
    Refusal("INVALID_REQUEST", INVALID_ARGUMENT, 400, "The message, a name, datatype, shape, parameter or header is wrong; the text names it.",
            _AGAIN),
    Refusal("INVALID_JSON", INVALID_ARGUMENT, 400, "The body is no JSON.", _AGAIN),
    Refusal("INVALID_PATH", INVALID_ARGUMENT, 400, "The path has a malformed escape, or a control character.", _AGAIN),
    Refusal("BAD_TENSOR", INVALID_ARGUMENT, 400, "A tensor of BYTES does not have the elements of its shape.", _AGAIN),
    Refusal("RUN_FAILED", INVALID_ARGUMENT, 400, "The model cannot run these values: an index outside of a table, a division by zero.", _AGAIN),
    Refusal("BAD_REQUEST", INVALID_ARGUMENT, 400,
            "HTTP/1.1 that is refused before its body is read: 400 (malformed), 408 (too slow), 413 (body too large), 415 (encoding), "
            "417 (`Expect`), 431 (head too large), 501 (transfer coding), 503 (no memory), 505 (version). The connection is closed.",
            "Correct what the text names; after 408 and 503 try again."),
    Refusal("NOT_FOUND", NOT_FOUND, 404, "No such model, version, label or health service.", NotFound.advice),
    Refusal("NOT_FOUND", UNIMPLEMENTED, 0, "A gRPC call to the listener of `--metrics-port`.", "Use another listener."),
    Refusal("METHOD", UNIMPLEMENTED, 0, "A gRPC call that is no POST.", "Use a gRPC client."),
    Refusal("UNSUPPORTED_COMPRESSION", UNIMPLEMENTED, 415, "The body or message is compressed in a way that is not known here.",
            UnsupportedCompression.advice),
    Refusal("BAD_COMPRESSION", INVALID_ARGUMENT, 400, "What is said to be compressed is damaged or cut.", BadCompression.advice),
    Refusal("BAD_COMPRESSION", INTERNAL, 0, "A message is marked as compressed, and its call names no coding.", "Use a gRPC client."),
    Refusal("NOT_READY", UNAVAILABLE, 503, "The model is known, and none of its versions is ready; or the server still loads its models.",
            NotReady.advice),
    Refusal("BREAKER_OPEN", UNAVAILABLE, 503, "The version's runs keep failing, and it is spared for a while (`breaker` in model.yaml).", _WAIT),
    Refusal("QUEUE_FULL", RESOURCE_EXHAUSTED, 429,
            "The model's queue is full (`queue.max_rows`, `queue.max_wait_ms`). HTTP 503 with `--busy-status 503`.", _WAIT),
    Refusal("DEADLINE_UNMEETABLE", RESOURCE_EXHAUSTED, 429, "Predicted to miss deadline, `timeout` or `slo.latency_ms`: the text says which.", _WAIT),
    Refusal("COLD_QUEUE_FULL", UNAVAILABLE, 503, "Too many calls that Python answers wait (`--cold-calls`, `--cold-mib`).", _WAIT),
    Refusal("PENDING_BYTES", UNAVAILABLE, 503, "Too many bytes of requests are held (`--max-pending-mib`).", _WAIT),
    Refusal("BODY_TOO_LARGE", RESOURCE_EXHAUSTED, 413, "The body or message is over `--max-body-mib`.",
            "Send fewer rows at once, or raise the limit."),
    Refusal("HEADERS_TOO_LARGE", RESOURCE_EXHAUSTED, 431, "The headers are over `--max-header-kib`.", "Send less metadata, or raise the limit."),
    Refusal("RESPONSE_TOO_LARGE", RESOURCE_EXHAUSTED, 429, "The answer would be over `--max-response-mib`.",
            "Ask for fewer rows or outputs, or raise the limit."),
    Refusal("OUT_OF_MEMORY", RESOURCE_EXHAUSTED, 429, "There is no memory for the request, its batch or its answer.", _MEMORY),
    Refusal("NO_MEMORY", UNAVAILABLE, 503, "There is no memory to send the answer.", _MEMORY),
    Refusal("DEADLINE_EXCEEDED", DEADLINE_EXCEEDED, 504, "The deadline passed before the answer was there, or is shorter than a run alone.",
            "Give it more time, or lighten the load."),
    Refusal("BODY_TOO_SLOW", DEADLINE_EXCEEDED, 408, "Over HTTP/2, the body came slower than `--min-body-rate`.", "Try again on a better line."),
    Refusal("RUN_TIMEOUT", DEADLINE_EXCEEDED, 504, "The run took longer than `run_timeout_ms`.", "Send fewer rows, or raise it in model.yaml."),
    Refusal("RUN_TERMINATED", DEADLINE_EXCEEDED, 504, "The run was ended from outside: the server stops.", "Ask another server."),
    Refusal("CANCELLED", CANCELLED, 499, "The caller has gone; this is seen in the log and the metrics alone.", "Nothing."),
    Refusal("WRONG_ROWS", INTERNAL, 500, "The model's outputs do not have the rows of its inputs.", "Set `batching: {mode: off}` in model.yaml."),
    Refusal("WRONG_LENGTH", INTERNAL, 500, "An output of a run of padded rows does not have their length.",
            "Correct `batching.padding.outputs` in model.yaml."),
    Refusal("RUN_OUT_OF_MEMORY", RESOURCE_EXHAUSTED, 429, "ONNX Runtime found no memory for what this input makes the model compute.", _MEMORY),
    Refusal("RUNTIME_ERROR", INTERNAL, 500, "ONNX Runtime failed, and not for the data's sake.", InternalError.advice),
    Refusal("MODEL_LOAD_FAILED", FAILED_PRECONDITION, 0, "ONNX Runtime cannot load the version: seen in the index and the log.", ModelError.advice),
    Refusal("MODEL_NOT_SERVABLE", FAILED_PRECONDITION, 0, "An input or output is no tensor that the protocol knows: seen in the index and the log.",
            "Export the model with tensors alone."),
    Refusal("NOT_INITIALISED", FAILED_PRECONDITION, 0, "A model is opened before ONNX Runtime is: only from Python.",
            "Call `ort.initialise()` first."),
)  # fmt: skip
