"""ONNX Runtime's C library: finds the installed one, opens it, sets it up, and puts its errors into our words."""

import importlib.util
import os
import re

from libcpp cimport bool as cpp_bool
from libcpp.string_view cimport string_view

from batchmill.core.ort_api cimport kApiVersion, kApiVersionWanted, OrtApiBase, OrtCUDAProviderOptionsV2, OrtThreadingOptions
from batchmill.core.status cimport append_echo, kDeadlineExceeded, kInternal, kInvalidArgument, kResourceExhausted

cdef extern from "<dlfcn.h>" nogil:
    void* dlopen(const char* path, int flags)
    void* dlsym(void* library, const char* name)
    const char* dlerror()
    int RTLD_NOW, RTLD_LOCAL

cdef extern from "spawner.hpp" namespace "batchmill" nogil:
    cdef cppclass Spawner:
        cpp_bool start()
    Spawner& spawner()
    void* spawn(void* options, void (*work)(void*) noexcept nogil, void* argument) noexcept
    void join_spawned(void* thread) noexcept

cdef enum:
    LOG_ERROR = 3               # OrtLoggingLevel
    ENABLE_ALL = 99             # GraphOptimizationLevel
    SEQUENTIAL = 0              # ExecutionMode
    ORT_FAIL = 1                # OrtErrorCode
    ORT_INVALID_ARGUMENT = 2
    ORT_RUNTIME_EXCEPTION = 6   # a kernel threw
    DEVICE_ALLOCATOR = 0        # OrtAllocatorType
    MEMORY_DEFAULT = 0          # OrtMemType
    MESSAGE_BYTES = 400         # of the runtime's text that are passed on

cdef Runtime opened  # written by open_library() alone, before any model exists
cdef RuntimeLog messages


cdef const Runtime* runtime() noexcept nogil:
    return &opened


cdef void keep_message(void* param, int severity, const char* category, const char* log_id, const char* place,
                       const char* message) noexcept nogil:
    messages.add(message)


def take_messages() -> tuple[list[str], int]:
    """The runtime's own messages since the last call, the first 32 of them, each on one line; and how many more there were."""
    cdef int64_t dropped = 0
    cdef string text
    lines = []
    for line in messages.take(&dropped):
        text.clear()
        append_message(text, line.c_str())
        lines.append(text.decode(errors="replace"))
    return lines, dropped


# --- opening ---

def find_library() -> str:
    """Path of the installed libonnxruntime.so.*, found without importing the package; the newest where there are several.

    onnxruntime, onnxruntime-gpu, onnxruntime-openvino and the like all install into the one folder onnxruntime/capi.
    """
    spec = importlib.util.find_spec("onnxruntime")
    found = []
    for folder in (spec.submodule_search_locations or []) if spec else []:
        folder = os.path.join(folder, "capi")
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            version = re.fullmatch(r"libonnxruntime\.so\.(\d+)\.(\d+)\.(\d+)", name)
            if version:
                found.append((tuple(map(int, version.groups())), os.path.join(folder, name)))
    if not found:
        raise RuntimeError("no libonnxruntime.so.* is installed; pip install onnxruntime (1.20 or newer, on Linux) brings it")
    return max(found)[1]


cdef OrtStatus* make_env(Runtime* target, int32_t wide_threads) noexcept nogil:
    """The pool's threads are made here, at the priority of the calling thread: an environment cannot be replaced once there are sessions.

    One of them costs 60 KiB and, as none spins, no time while there is nothing to do. Who makes the threads of other pools is made too.
    """
    cdef const Api* api = &target.api
    cdef OrtThreadingOptions* options = NULL
    cdef OrtStatus* error
    spawner().start()
    if wide_threads == 1:
        return api.CreateEnvWithCustomLogger(keep_message, NULL, LOG_ERROR, b"batchmill", &target.env)
    error = api.CreateThreadingOptions(&options)
    if error == NULL:
        error = api.SetGlobalIntraOpNumThreads(options, wide_threads)
    if error == NULL:
        error = api.SetGlobalInterOpNumThreads(options, 1)
    if error == NULL:
        error = api.SetGlobalSpinControl(options, 0)
    if error == NULL:
        error = api.CreateEnvWithCustomLoggerAndGlobalThreadPools(keep_message, NULL, LOG_ERROR, b"batchmill", options, &target.env)
    if options != NULL:
        api.ReleaseThreadingOptions(options)
    if error == NULL:
        target.wide_threads = wide_threads
    return error


def open_library(path: str, int32_t wide_threads=1) -> str:
    """Opens the library and binds the entries that are used; its version. RuntimeError when it is not what its name says.

    wide_threads: of the shared wide pool, with the caller's; 1: none.
    """
    global opened
    cdef bytes name = os.fsencode(path)
    cdef const char* name_bytes = name
    cdef void* library
    cdef OrtStatus* error
    cdef OrtApiBase* (*get_base)() noexcept nogil
    cdef Runtime candidate
    cdef uint32_t api_version = kApiVersion
    # From 1.32 on it keeps a database of events in the home folder, and sends them out.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    with nogil:
        library = dlopen(name_bytes, RTLD_NOW | RTLD_LOCAL)
    if library == NULL:
        raise RuntimeError(f"{path} cannot be opened: {dlerror().decode(errors='replace')}")
    get_base = <OrtApiBase* (*)() noexcept nogil> dlsym(library, b"OrtGetApiBase")
    if get_base == NULL:
        raise RuntimeError(f"{path} is not ONNX Runtime: it exports no OrtGetApiBase")
    version = get_base().GetVersionString().decode(errors="replace")
    stated = re.search(r"\.so\.([0-9.]+)$", os.path.realpath(path))
    if not re.match(r"1\.\d+\.\d+", version) or (stated and not version.startswith(stated[1])):
        raise RuntimeError(f"{path} says that its version is {version[:40]!r}")
    if int(version.split(".")[1]) >= <int> kApiVersionWanted:
        api_version = kApiVersionWanted
    cdef const void* const* table = get_base().GetApi(api_version)
    if table == NULL:
        raise RuntimeError(f"{path}, version {version}, does not have API version {api_version}; 1.20 or newer is needed")
    candidate.api.bind(table, api_version)
    with nogil:
        error = make_env(&candidate, wide_threads)
    if error == NULL:
        error = candidate.api.CreateCpuMemoryInfo(DEVICE_ALLOCATOR, MEMORY_DEFAULT, &candidate.cpu_memory)
    if error == NULL:
        error = candidate.api.GetAllocatorWithDefaultOptions(&candidate.allocator)
    if error != NULL:
        raise RuntimeError(f"{path} cannot be started: {candidate.api.GetErrorMessage(error)[:400].decode(errors='replace')}")
    opened = candidate
    return version


def forget_library() -> None:
    """Nothing can be loaded any more, as before open_library(). For a library that failed its proof."""
    opened.allocator = NULL  # the function table stays: models that were made must still end


def list_providers() -> list[str]:
    """The execution providers that this build of the runtime has, best first."""
    cdef char** names = NULL
    cdef int count = 0
    if opened.allocator == NULL:
        raise RuntimeError("ONNX Runtime is not open")
    cdef OrtStatus* error = opened.api.GetAvailableProviders(&names, &count)
    if error != NULL or not 0 < count < 100:  # two dozen exist
        raise RuntimeError("ONNX Runtime gives no list of providers")
    listed = [names[index].decode(errors="replace") for index in range(count)]
    error = opened.api.ReleaseAvailableProviders(names, count)
    if error != NULL:
        opened.api.ReleaseStatus(error)
    return listed


# --- options of a session ---

cdef OrtStatus* use_provider(OrtSessionOptions* options, const string& provider) noexcept nogil:
    cdef OrtCUDAProviderOptionsV2* cuda = NULL
    cdef OrtStatus* error
    cdef string name = provider
    if name == b"CPUExecutionProvider":
        return NULL  # every session ends with it
    if name == b"CUDAExecutionProvider":
        error = opened.api.CreateCUDAProviderOptions(&cuda)
        if error == NULL:
            error = opened.api.SessionOptionsAppendExecutionProvider_CUDA_V2(options, cuda)
            opened.api.ReleaseCUDAProviderOptions(cuda)
        return error
    cdef size_t end = name.rfind(b"ExecutionProvider")
    if end != <size_t> -1:
        name.resize(end)  # the generic call has "XNNPACK" where the list of providers has "XnnpackExecutionProvider"
    if name == b"Xnnpack":
        name.assign(b"XNNPACK")
    elif name == b"Azure":
        name.assign(b"AZURE")
    return opened.api.SessionOptionsAppendExecutionProvider(options, name.c_str(), NULL, NULL, 0)


cdef OrtStatus* have_threads_spawned(OrtSessionOptions* target) noexcept nogil:
    """Those who load give way to all others; the threads that run models must not."""
    cdef OrtStatus* error = opened.api.SessionOptionsSetCustomCreateThreadFn(target, spawn)
    return opened.api.SessionOptionsSetCustomJoinThreadFn(target, join_spawned) if error == NULL else error


cdef OrtStatus* configure(OrtSessionOptions* target, const LoadOptions& options) noexcept nogil:
    cdef OrtStatus* error = opened.api.SetSessionExecutionMode(target, SEQUENTIAL)
    cdef size_t index
    if error == NULL:
        error = opened.api.SetInterOpNumThreads(target, 1)
    if error == NULL and options.intra_op_threads:
        error = opened.api.SetIntraOpNumThreads(target, options.intra_op_threads)
        if error == NULL and options.intra_op_threads > 1:
            error = have_threads_spawned(target)
    elif error == NULL:
        error = opened.api.DisablePerSessionThreads(target)
    if error == NULL:
        error = opened.api.SetSessionGraphOptimizationLevel(target, ENABLE_ALL)
    if error == NULL:
        error = opened.api.SetSessionLogSeverityLevel(target, LOG_ERROR)
    if error == NULL:
        # Spinning threads of many sessions cost four times the CPU for nothing.
        error = opened.api.AddSessionConfigEntry(target, b"session.intra_op.allow_spinning", b"0")
    if error == NULL and not options.memory_pattern:
        error = opened.api.DisableMemPattern(target)
    for index in range(options.providers.size()):
        if error == NULL:
            error = use_provider(target, options.providers[index])
    return error


# --- errors ---

cdef const char* skip_source_place(const char* at) noexcept nogil:
    """The text after "/path/file.cc:45 Result ns::function(arguments) const ", or after "file.h:45 function "; else `at`."""
    cdef const char* end = at
    cdef const char* colon
    cdef const char* after
    cdef int depth = 0
    while <unsigned char> end[0] > 32:
        end += 1
    colon = end
    while colon > at and 48 <= (colon - 1)[0] <= 57:
        colon -= 1
    colon -= colon > at
    if colon == at or end - colon < 2 or colon[0] != 58 or not ends_source_name(at, colon):
        return at
    after = end + (end[0] == 32)
    if at[0] != 47:  # "/": the short form has the function's name alone
        while <unsigned char> after[0] > 32:
            after += 1
        return after
    while after[0] and after[0] != 40 and after[0] != 10:  # "("
        after += 1
    while after[0]:
        depth += (after[0] == 40) - (after[0] == 41)
        after += 1
        if depth == 0:
            break
    if begins_with(after, b" const"):
        after += 6
    if begins_with(after, b" [with "):
        while after[0] and after[0] != 93:
            after += 1
        after += after[0] == 93
    return after if depth == 0 else end


cdef bint ends_source_name(const char* start, const char* colon) noexcept nogil:
    """Whether what lies before the colon ends like a C++ file's name."""
    cdef const char* dot = colon
    while dot > start and dot[0] != 46:
        dot -= 1
    return (begins_with(dot, b".cc:") or begins_with(dot, b".h:") or begins_with(dot, b".cpp:") or begins_with(dot, b".hpp:")
            or begins_with(dot, b".cu:") or begins_with(dot, b".cuh:"))


cdef bint begins_with(const char* text, const char* prefix) noexcept nogil:
    cdef size_t index = 0
    while prefix[index] and text[index] == prefix[index]:
        index += 1
    return prefix[index] == 0


cdef void replace_all(string& text, const char* before, const char* after) noexcept nogil:
    cdef size_t at = text.find(before)
    while at != <size_t> -1:
        text.replace(at, string_view(before).size(), after)
        at = text.find(before, at + string_view(after).size())


cdef void drop_phrases(string& line) noexcept nogil:
    """`Gather node 'g': ...` is left of "Non-zero status code returned while running Gather node. Name:'g' Status Message: ..."."""
    cdef size_t start = line.find(b"[ONNXRuntimeError] : ")
    cdef size_t end
    while start != <size_t> -1:     # "[ONNXRuntimeError] : 1 : FAIL : " is told by our own words
        end = line.find(b" : ", line.find(b" : ", start + 21) + 3)
        if end == <size_t> -1 or end > start + 64:
            break
        line.erase(start, end + 3 - start)
        start = line.find(b"[ONNXRuntimeError] : ", start)
    replace_all(line, b"Non-zero status code returned while running ", b"")
    replace_all(line, b". Name:'' Status Message:", b":")
    replace_all(line, b". Name:'", b" '")
    replace_all(line, b"' Status Message:", b"':")


cdef void append_message(string& text, const char* message) noexcept nogil:
    """Appends the runtime's message on one line, without places in its source, valid UTF-8, at most MESSAGE_BYTES of it."""
    cdef string line
    cdef const char* at = message
    cdef const char* after
    cdef size_t start = 0
    cdef size_t length
    while at[0]:
        after = skip_source_place(at) if at == message or (at - 1)[0] <= 32 else at
        if after != at:
            at = after
        elif <unsigned char> at[0] > 32:
            line.push_back(at[0])
            at += 1
        else:
            at += 1
            if line.size() and line.back() != 32:
                line.push_back(32)
    while line.size() and line.back() == 32:
        line.pop_back()
    drop_phrases(line)
    while start < line.size() and start < MESSAGE_BYTES:
        length = min(line.size() - start, <size_t> 150)  # append_echo takes 200 at a time
        while length > 1 and start + length < line.size() and line[start + length] & 0xC0 == 0x80:
            length -= 1
        append_echo(text, string_view(line.data() + start, length))
        start += length
    if start < line.size():
        text.append(b"...")


cdef bint refuse(OrtStatus* error, Status* status, Code code, const char* reason, const char* what) noexcept nogil:
    """Turns the runtime's error into ours and releases it. True: there was none."""
    if error == NULL:
        return True
    cdef string text = string(what)
    append_message(text, opened.api.GetErrorMessage(error))
    status.set(code, reason, text)
    opened.api.ReleaseStatus(error)
    return False


cdef void refuse_run(OrtStatus* error, Status* status) noexcept nogil:
    """The same for a failed run: is it the fault of the data, or of this server?"""
    cdef int number = opened.api.GetErrorCode(error)
    cdef string_view message = string_view(opened.api.GetErrorMessage(error))
    cdef size_t nowhere = <size_t> -1
    cdef bint in_node = message.find(b"while running ") != nowhere
    cdef bint no_memory = message.find(b"allocate memory") != nowhere or message.find(b"bad_alloc") != nowhere
    if message.find(b"terminate flag") != nowhere:
        refuse(error, status, kDeadlineExceeded, b"RUN_TERMINATED", b"the run was ended before its time: ")
    elif no_memory:
        refuse(error, status, kResourceExhausted, b"RUN_OUT_OF_MEMORY", b"the run failed: ")
    elif number == ORT_INVALID_ARGUMENT or (in_node and (number == ORT_FAIL or number == ORT_RUNTIME_EXCEPTION)):
        refuse(error, status, kInvalidArgument, b"RUN_FAILED", b"the model cannot run this input: ")
    else:
        refuse(error, status, kInternal, b"RUNTIME_ERROR", b"the run failed: ")
