"""ONNX Runtime, seen from Python: opens and proves the library, loads models, runs them; the GIL is released for both."""

import os
import threading

from libc.stdint cimport int32_t, int64_t, uint64_t, uint8_t
from libc.stdlib cimport atoll
from libcpp.string cimport string
from libcpp.vector cimport vector

from batchmill.core.ort_api cimport Api, OrtAllocator, OrtKeyValuePairs, OrtStatus
from batchmill.core.ort_library cimport runtime
from batchmill.core.ort_session cimport catch_traps, load_bytes
from batchmill.core.status cimport kInvalidArgument, Status
from batchmill.core.tensor cimport (
    count_bytes_elements, datatype_name, datatype_of, DataType, element_bytes, element_count, kMaxRank, TensorSpec, TensorView,
)

from batchmill.core.closeness import close
from batchmill.core.ort_library import find_library, forget_library, list_providers, open_library, take_messages

__all__ = ["Model", "available_providers", "close", "initialise", "take_messages"]

# y = x * 2 + 1 for x FP32 [rows, 2], and t = s for s BYTES [rows]; ONNX IR 8, opset 14. It needs every entry that a run needs, and
# its outputs come in the other order, so that a function of inputs called in place of one of outputs shows.
cdef bytes PROOF = bytes.fromhex(
    "08083aab010a0e0a01780a016112016d22034d756c0a0e0a016d0a016212017922034164640a100a017312017422084964656e746974791201672a0b10012204"
    "000000404201612a0b100122040000803f4201625a170a017812120a100801120c0a061204726f77730a0208025a130a0173120e0a0c080812080a061204726f"
    "777362130a0174120e0a0c080812080a061204726f777362170a017912120a100801120c0a061204726f77730a02080242040a00100e"
)

_opened = None  # (path, version)
_opening = threading.Lock()


def initialise(path: str | None = None, wide_threads: int = 1) -> str:
    """Opens ONNX Runtime's C library and proves it by running a model; its version. Once a process, before any load; from any thread.

    path: of a libonnxruntime.so.*; None: the installed one. RuntimeError when there is none, or it fails the proof: a function
    called by the wrong index would answer something else, in silence.

    wide_threads: that share a run of a wide model, its caller among them; 1: there are no wide models. Their pool's threads have
    the priority of the thread that calls this, and stay as long as the process.
    """
    global _opened
    with _opening:
        if _opened is not None and path in (None, _opened[0]):
            return _opened[1]
        if _opened is not None:
            raise RuntimeError(f"ONNX Runtime is open already: {_opened[0]}")
        path = path or find_library()
        version = open_library(path, wide_threads)
        catch_traps()
        try:
            _prove()
        except (RuntimeError, ValueError) as error:
            forget_library()
            raise RuntimeError(f"{path} does not do what ONNX Runtime {version} should: {error}") from error
        _opened = (path, version)
        return version


def available_providers() -> list[str]:
    """The execution providers that the open library has, best first."""
    return list_providers()


def _prove() -> None:
    """Runs what every other module relies on, with known answers. RuntimeError says which of it failed."""
    providers = list_providers()
    if "CPUExecutionProvider" not in providers or not all([name.endswith("ExecutionProvider") for name in providers]):
        raise RuntimeError(f"its list of execution providers is {providers}")
    model = Model("", _content=PROOF)
    signature = ([("x", "FP32", [-1, 2], ["rows", ""]), ("s", "BYTES", [-1], ["rows"])],
                 [("t", "BYTES", [-1], ["rows"]), ("y", "FP32", [-1, 2], ["rows", ""])])
    if (model.inputs, model.outputs) != signature:
        raise RuntimeError(f"it reads a known model's signature as {(model.inputs, model.outputs)}")
    x = bytes.fromhex("0000803f 00000040 000040c0 0000003f")     # 1, 2, -3, 0.5
    y = bytes.fromhex("00004040 0000a040 0000a0c0 00000040")     # 3, 5, -5, 2
    s = b"\3\0\0\0a\0b" b"\2\0\0\0\xff\xfe"
    wanted = {"y": ("FP32", [2, 2], y), "t": ("BYTES", [2], s)}
    given = {"x": ("FP32", [2, 2], x), "s": ("BYTES", [2], s)}
    answer = model.run(given)
    if answer != wanted:
        raise RuntimeError(f"a known model gives {answer}")
    try:
        model.run({"x": ("FP32", [1, 4], x), "s": given["s"]})
    except ValueError as error:
        if "invalid dimensions" not in str(error):
            raise RuntimeError(f"a wrong shape is refused with {error}") from error
    else:
        raise RuntimeError("a wrong shape is not refused")
    if not _terminates(model, given, wanted):
        raise RuntimeError("a run cannot be terminated")
    if runtime().wide_threads > 1 and Model("", 0, _content=PROOF).run(given) != wanted:
        raise RuntimeError("a known model gives something else on the shared wide pool")
    take_messages()


def _terminates(model: Model, given: dict, wanted: dict) -> bool:
    """Whether run options end a run, and let the next one through again."""
    cdef OrtRunOptions* options = new_run_options()
    try:
        set_terminate(options, True)
        try:
            model.run_with(given, None, options)
            return False
        except RuntimeError:
            pass
        set_terminate(options, False)
        return model.run_with(given, None, options) == wanted
    finally:
        delete_run_options(options)


cdef list describe(const vector[TensorSpec]& specs, const vector[vector[string]]& dims):
    cdef size_t index
    cdef vector[string] names
    described = []
    for index in range(specs.size()):
        names = dims[index]
        described.append((specs[index].name.decode(errors="replace"), datatype_name(specs[index].dtype).decode(),
                          [specs[index].shape.dims[axis] for axis in range(specs[index].shape.rank)],
                          [name.decode(errors="replace") for name in names]))
    return described


cdef int64_t allocated(const OrtModel* model) noexcept:
    cdef const Api* api = &runtime().api
    cdef OrtAllocator* arena = NULL
    cdef OrtKeyValuePairs* stats = NULL
    cdef const char* text
    cdef int64_t found = -1
    if api.AllocatorGetStats == NULL:
        return found
    cdef OrtStatus* error = api.CreateAllocator(model.session, runtime().cpu_memory, &arena)
    if error == NULL:
        error = api.AllocatorGetStats(arena, &stats)
    if error == NULL and stats != NULL:
        text = api.GetKeyValue(stats, b"TotalAllocated")
        if text != NULL:
            found = atoll(text)
        api.ReleaseKeyValuePairs(stats)
    if error != NULL:
        api.ReleaseStatus(error)
    if arena != NULL:
        api.ReleaseAllocator(arena)
    return found


cdef class Model:
    """A loaded ONNX model; owns the session. Any number of threads may run it at once.

    inputs, outputs: (name, datatype, shape with -1 where any size goes, the axes' symbolic names or ""). The runtime's ValueError
    for what the data or the file has wrong, RuntimeError for what the server has.

    intra_op_threads: that share a run; 1: the caller's alone; more: with a pool of the model's own; 0: with the shared wide pool.
    """

    def __cinit__(self, path: str, intra_op_threads: int = 1, providers: tuple[str, ...] = ("CPUExecutionProvider",), *,
                  _content: bytes | None = None):
        cdef LoadOptions options
        cdef Status status
        cdef bytes name = os.fsencode(path)
        cdef const char* name_bytes = name
        cdef const uint8_t* content = NULL
        cdef size_t size = 0
        if runtime().allocator == NULL:
            raise RuntimeError("initialise() comes before the first model")
        if not 0 <= intra_op_threads <= 1024:
            raise ValueError(f"intra_op_threads: 0 to 1024, not {intra_op_threads}")
        if intra_op_threads == 0 and runtime().wide_threads == 1:
            raise ValueError("intra_op_threads: 0, but the library was opened without a shared wide pool")
        known = list_providers()
        for provider in providers:
            if provider not in known:
                raise ValueError(f"this ONNX Runtime has no execution provider {provider!r}; it has {', '.join(known)}")
            options.providers.push_back(provider.encode())
        options.intra_op_threads = intra_op_threads
        if _content is not None:
            content = _content
            size = len(_content)
        with nogil:
            if content != NULL:
                self.model = load_bytes(content, size, options, &status)
            else:
                self.model = load(name_bytes, options, &status)
        if self.model == NULL:
            raise ValueError(status.message.decode(errors="replace"))
        self.inputs = describe(self.model.inputs, self.model.input_dims)
        self.outputs = describe(self.model.outputs, self.model.output_dims)

    def __dealloc__(self):
        with nogil:
            destroy(self.model)

    @property
    def memory_bytes(self) -> int:
        """What the session's arena holds: weights, and the most that runs needed. -1: this release of the runtime does not tell."""
        return allocated(self.model)

    def run(self, inputs: dict, outputs: list | None = None) -> dict:
        """Runs the model once on tensors in raw form: {name: (datatype, shape, bytes)} in, and the same out.

        outputs: names of those wanted; None: all. ValueError: a name, datatype, shape or size that does not fit, or data that the
        model cannot run. RuntimeError: the run failed for another reason.
        """
        return self.run_with(inputs, outputs, NULL)

    cdef dict run_with(self, dict inputs, object outputs, const OrtRunOptions* options):
        cdef vector[TensorView] views
        cdef vector[int32_t] input_index, output_index
        cdef OutputSet answers
        cdef Status status
        cdef bint done
        cdef size_t index
        input_names = [spec[0] for spec in self.inputs]
        output_names = [spec[0] for spec in self.outputs]
        views.resize(len(inputs))
        for number, (name, (datatype, shape, raw)) in enumerate(inputs.items()):
            if name not in input_names:
                raise ValueError(f"the model has no input {name[:100]!r}; it has {', '.join(input_names)}")
            input_index.push_back(input_names.index(name))
            fill_view(&views[number], &self.model.inputs[input_index.back()], datatype, shape, raw)
        for name in output_names if outputs is None else outputs:
            if name not in output_names:
                raise ValueError(f"the model has no output {name[:100]!r}; it has {', '.join(output_names)}")
            output_index.push_back(output_names.index(name))
        if missing := set(input_names) - set(inputs):
            raise ValueError(f"input {min(missing)!r} is missing")
        with nogil:
            done = run(self.model, views.data(), input_index.data(), views.size(), output_index.data(), output_index.size(),
                       &answers, &status, options)
        if not done:
            text = status.message.decode(errors="replace")
            raise ValueError(text) if status.code == kInvalidArgument else RuntimeError(text)
        answer = {}
        for index in range(answers.views.size()):
            view = &answers.views[index]
            answer[output_names[output_index[index]]] = (
                datatype_name(view.dtype).decode(), [view.shape.dims[axis] for axis in range(view.shape.rank)],
                (<const char*> view.data)[:view.size])
        return answer


cdef bint fill_view(TensorView* view, const TensorSpec* spec, str datatype, object shape, bytes raw) except False:
    """Makes the view of raw, which must outlive it; ValueError when its size is not that of its shape."""
    cdef bytes dtype_name = datatype.encode()
    cdef int64_t count
    name = spec.name.decode(errors="replace")
    if datatype_of(dtype_name) != spec.dtype:
        raise ValueError(f"input {name!r}: datatype {datatype[:40]} given, {datatype_name(spec.dtype).decode()} wanted")
    if len(shape) > kMaxRank:
        raise ValueError(f"input {name!r}: {len(shape)} axes given, at most {kMaxRank} are served")
    view.dtype = spec.dtype
    view.shape.rank = len(shape)
    for axis, size in enumerate(shape):
        view.shape.dims[<int> axis] = size
    view.data = <const uint8_t*> <const char*> raw
    view.size = len(raw)
    count = element_count(view.shape)
    if spec.dtype == DataType.kBytes:
        if count < 0 or count_bytes_elements(view.data, view.size) != count:
            raise ValueError(f"input {name!r}: the bytes given are not the elements of shape {list(shape)}")
    elif count < 0 or <uint64_t> count * element_bytes(spec.dtype) != view.size:
        raise ValueError(f"input {name!r}: {view.size} bytes given, shape {list(shape)} of {datatype} wanted")
    return True
