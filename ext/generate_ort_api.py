"""Generates ort_api.hpp and ort_api.pxd: which entries of ONNX Runtime's function table are used, and where they lie.

    python ext/generate_ort_api.py [HEADER]

HEADER: an onnxruntime_c_api.h; its struct OrtApi is read into ext/ort_api_entries.txt first. Without one, that list is used as it is.
The table is only ever appended to, so one list serves every release from the list's version on, and older ones up to what they have.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENTRIES = HERE / "ort_api_entries.txt"
HEADER = HERE / "batchmill" / "core" / "ort_api.hpp"
DECLARATIONS = HEADER.with_suffix(".pxd")

STATUS = "OrtStatus*"
INFO = "const OrtTensorTypeAndShapeInfo*"
# Name: (result, arguments). Enumerations are int, as in C.
USED = {
    "GetErrorCode": ("int", "const OrtStatus*"),
    "GetErrorMessage": ("const char*", "const OrtStatus*"),
    "CreateEnvWithCustomLogger": (STATUS, "OrtLogger logger, void* param, int severity, const char* log_id, OrtEnv**"),
    "CreateEnvWithCustomLoggerAndGlobalThreadPools": (STATUS, "OrtLogger logger, void* param, int severity, const char* log_id, "
                                                              "const OrtThreadingOptions*, OrtEnv**"),
    "CreateThreadingOptions": (STATUS, "OrtThreadingOptions**"),
    "ReleaseThreadingOptions": ("void", "OrtThreadingOptions*"),
    "SetGlobalIntraOpNumThreads": (STATUS, "OrtThreadingOptions*, int threads"),
    "SetGlobalInterOpNumThreads": (STATUS, "OrtThreadingOptions*, int threads"),
    "SetGlobalSpinControl": (STATUS, "OrtThreadingOptions*, int allow"),
    "CreateSession": (STATUS, "const OrtEnv*, const char* path, const OrtSessionOptions*, OrtSession**"),
    "CreateSessionFromArray": (STATUS, "const OrtEnv*, const void* data, size_t size, const OrtSessionOptions*, OrtSession**"),
    "Run": (STATUS, "OrtSession*, const OrtRunOptions*, const char* const* input_names, const OrtValue* const* inputs, "
                    "size_t input_count, const char* const* output_names, size_t output_count, OrtValue** outputs"),
    "CreateSessionOptions": (STATUS, "OrtSessionOptions**"),
    "SetSessionExecutionMode": (STATUS, "OrtSessionOptions*, int mode"),
    "DisablePerSessionThreads": (STATUS, "OrtSessionOptions*"),
    "DisableMemPattern": (STATUS, "OrtSessionOptions*"),
    "SetSessionLogSeverityLevel": (STATUS, "OrtSessionOptions*, int severity"),
    "SetSessionGraphOptimizationLevel": (STATUS, "OrtSessionOptions*, int level"),
    "SetIntraOpNumThreads": (STATUS, "OrtSessionOptions*, int threads"),
    "SetInterOpNumThreads": (STATUS, "OrtSessionOptions*, int threads"),
    "SessionOptionsSetCustomCreateThreadFn": (STATUS, "OrtSessionOptions*, OrtMakeThread"),
    "SessionOptionsSetCustomJoinThreadFn": (STATUS, "OrtSessionOptions*, OrtJoinThread"),
    "SessionGetInputCount": (STATUS, "const OrtSession*, size_t*"),
    "SessionGetOutputCount": (STATUS, "const OrtSession*, size_t*"),
    "SessionGetInputTypeInfo": (STATUS, "const OrtSession*, size_t index, OrtTypeInfo**"),
    "SessionGetOutputTypeInfo": (STATUS, "const OrtSession*, size_t index, OrtTypeInfo**"),
    "SessionGetInputName": (STATUS, "const OrtSession*, size_t index, OrtAllocator*, char**"),
    "SessionGetOutputName": (STATUS, "const OrtSession*, size_t index, OrtAllocator*, char**"),
    "CreateRunOptions": (STATUS, "OrtRunOptions**"),
    "RunOptionsSetTerminate": (STATUS, "OrtRunOptions*"),
    "RunOptionsUnsetTerminate": (STATUS, "OrtRunOptions*"),
    "CreateTensorAsOrtValue": (STATUS, "OrtAllocator*, const int64_t* dims, size_t rank, int element_type, OrtValue**"),
    "CreateTensorWithDataAsOrtValue": (STATUS, "const OrtMemoryInfo*, void* data, size_t size, const int64_t* dims, size_t rank, "
                                               "int element_type, OrtValue**"),
    "GetTensorMutableData": (STATUS, "OrtValue*, void**"),
    "GetStringTensorDataLength": (STATUS, "const OrtValue*, size_t* size"),
    "GetStringTensorContent": (STATUS, "const OrtValue*, void* bytes, size_t size, size_t* offsets, size_t count"),
    "CastTypeInfoToTensorInfo": (STATUS, f"const OrtTypeInfo*, {INFO}*"),
    "GetOnnxTypeFromTypeInfo": (STATUS, "const OrtTypeInfo*, int*"),
    "GetTensorElementType": (STATUS, f"{INFO}, int*"),
    "GetDimensionsCount": (STATUS, f"{INFO}, size_t*"),
    "GetDimensions": (STATUS, f"{INFO}, int64_t* dims, size_t rank"),
    "GetSymbolicDimensions": (STATUS, f"{INFO}, const char** names, size_t rank"),
    "GetTensorTypeAndShape": (STATUS, "const OrtValue*, OrtTensorTypeAndShapeInfo**"),
    "CreateCpuMemoryInfo": (STATUS, "int allocator_type, int memory_type, OrtMemoryInfo**"),
    "AllocatorFree": (STATUS, "OrtAllocator*, void*"),
    "GetAllocatorWithDefaultOptions": (STATUS, "OrtAllocator**"),
    "CreateAllocator": (STATUS, "const OrtSession*, const OrtMemoryInfo*, OrtAllocator**"),
    "ReleaseAllocator": ("void", "OrtAllocator*"),
    "ReleaseStatus": ("void", "OrtStatus*"),
    "ReleaseSession": ("void", "OrtSession*"),
    "ReleaseValue": ("void", "OrtValue*"),
    "ReleaseRunOptions": ("void", "OrtRunOptions*"),
    "ReleaseTypeInfo": ("void", "OrtTypeInfo*"),
    "ReleaseTensorTypeAndShapeInfo": ("void", "OrtTensorTypeAndShapeInfo*"),
    "ReleaseSessionOptions": ("void", "OrtSessionOptions*"),
    "GetAvailableProviders": (STATUS, "char*** names, int* count"),
    "ReleaseAvailableProviders": (STATUS, "char** names, int count"),
    "AddRunConfigEntry": (STATUS, "OrtRunOptions*, const char* key, const char* value"),
    "AddSessionConfigEntry": (STATUS, "OrtSessionOptions*, const char* key, const char* value"),
    "SessionOptionsAppendExecutionProvider_CUDA_V2": (STATUS, "OrtSessionOptions*, const OrtCUDAProviderOptionsV2*"),
    "CreateCUDAProviderOptions": (STATUS, "OrtCUDAProviderOptionsV2**"),
    "ReleaseCUDAProviderOptions": ("void", "OrtCUDAProviderOptionsV2*"),
    "SessionOptionsAppendExecutionProvider": (STATUS, "OrtSessionOptions*, const char* name, const char* const* keys, "
                                                      "const char* const* values, size_t count"),
    "GetResizedStringTensorElementBuffer": (STATUS, "OrtValue*, size_t index, size_t size, char**"),
}
# Used where the library has them; null in older ones.
OPTIONAL = {
    "TensorTypeAndShape_HasShape": ("bool", INFO),
    "AllocatorGetStats": (STATUS, "const OrtAllocator*, OrtKeyValuePairs**"),
    "GetKeyValue": ("const char*", "const OrtKeyValuePairs*, const char* key"),
    "ReleaseKeyValuePairs": ("void", "OrtKeyValuePairs*"),
    "GetTensorElementTypeAndShapeDataReference": (STATUS, "const OrtValue*, int* element_type, const int64_t** dims, size_t* rank"),
}
OPAQUE = ("Status", "Env", "Session", "SessionOptions", "RunOptions", "Value", "TypeInfo", "TensorTypeAndShapeInfo", "MemoryInfo",
          "Allocator", "CUDAProviderOptionsV2", "KeyValuePairs", "ThreadingOptions")


def read_header(text: str) -> tuple[int, list[tuple[str, int]]]:
    """The header's API version and the entries of struct OrtApi in order, each with the version that brought it.

    The header gives no version for the entries of its first years; those count as version 1.
    """
    version = re.search(r"#define ORT_API_VERSION (\d+)", text)
    struct = re.search(r"^struct OrtApi \{(.*?)^\};", text, re.M | re.S)
    if not version or not struct:
        raise SystemExit("no ORT_API_VERSION or no struct OrtApi in that header")
    token = re.compile(r"/\*.*?\*/|//[^\n]*|ORT_API2_STATUS\(\s*(\w+)|ORT_API_T\([^,]+,\s*(\w+)|ORT_CLASS_RELEASE\(\s*(\w+)\s*\)"
                       r"|\(\s*ORT_API_CALL\s*\*\s*(\w+)\s*\)", re.S)
    entries: list[tuple[str, int]] = []
    since = 1
    for found in token.finditer(struct[1]):
        name = found[1] or found[2] or (found[3] and "Release" + found[3]) or found[4]
        if name:
            entries.append((name, since))
        elif stated := re.search(r"\\since\s+(?:[Vv]ersion\s+)?1\.(\d+)", found[0]):
            since = max(since, int(stated[1]))
    return int(version[1]), entries


def read_entries(text: str) -> tuple[int, list[tuple[str, int]]]:
    """The same, out of ort_api_entries.txt."""
    version = re.search(r"ORT_API_VERSION (\d+)", text)
    assert version
    rows = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return int(version[1]), [(name, int(since)) for name, since in rows]


def join(lines: list[str]) -> str:
    """The lines as one text, those over 140 columns wrapped; "~" is a space that is not to be wrapped at."""
    wrapped = []
    for line in lines:
        indent = " " * (line.rfind("(", 0, 120) + 1)
        wrapped += textwrap.wrap(line, 140, subsequent_indent=indent) if len(line) > 140 else [line]
    return "\n".join(wrapped).replace("~", " ") + "\n"


def render(version: int, entries: list[tuple[str, int]]) -> str:
    """The text of ort_api.hpp."""
    places = {name: (index, since) for index, (name, since) in enumerate(entries)}
    needed = max(places[name][1] for name in USED)
    wanted = max(places[name][1] for name in OPTIONAL)
    declared = USED | OPTIONAL
    lines = [
        "// Generated by ext/generate_ort_api.py; do not edit.",
        f"// The entries of ONNX Runtime's function table that are used, counted in the C header with ORT_API_VERSION {version}.",
        "#pragma once", "#include <cstddef>", "#include <cstdint>", "",
        *(f"struct Ort{name};" for name in OPAQUE), "",
        "struct OrtApiBase {", "    const void* const* (*GetApi)(uint32_t version);", "    const char* (*GetVersionString)();", "};", "",
        "namespace batchmill::ort {", "",
        f"constexpr uint32_t kApiVersion = {needed};       // the lowest that has all that is needed",
        f"constexpr uint32_t kApiVersionWanted = {wanted};  // ... and all that is used where it is there", "",
        "using OrtLogger = void (*)(void* param, int severity, const char* category, const char* log_id, const char* place, "
        "const char* message);",
        "using OrtMakeThread = void* (*)(void* options, void (*work)(void*), void* argument);",
        "using OrtJoinThread = void (*)(void* thread);", "",
        "struct Index {",
        *(f"    static constexpr size_t {name} = {places[name][0]};" for name in sorted(declared, key=lambda n: places[n][0])),
        "};", "", "struct Api {",
        *(f"    {result} (*{name})({arguments}) = nullptr;" for name, (result, arguments) in declared.items()), "",
        "    void bind(const void* const* table, uint32_t version) {",
        *(f"        set({name}, table[Index::{name}]);" for name in USED),
        *(f"        if (version >= {places[name][1]}) set({name}, table[Index::{name}]);" for name in OPTIONAL),
        "    }", "    template <class Function>",
        "    static void set(Function& function, const void* entry) { function = reinterpret_cast<Function>(const_cast<void*>(entry)); }",
        "};", "", "}  // namespace batchmill::ort"]
    return join(lines)


def render_declarations() -> str:
    """The text of ort_api.pxd."""
    lines = [
        "# Generated by ext/generate_ort_api.py; do not edit. ONNX Runtime's function table; there is no ort_api.pyx.",
        "from libc.stdint cimport int64_t, uint32_t", "from libcpp cimport bool as cpp_bool", "",
        'cdef extern from "ort_api.hpp" nogil:',
        *(f"    cdef cppclass Ort{name}:\n        pass" for name in OPAQUE),
        "    cdef cppclass OrtApiBase:",
        "        const void** (*GetApi)(uint32_t version) noexcept nogil",
        "        const char* (*GetVersionString)() noexcept nogil", "",
        'cdef extern from "ort_api.hpp" namespace "batchmill::ort" nogil:',
        "    uint32_t kApiVersion, kApiVersionWanted",
        "    ctypedef void (*OrtLogger)(void* param, int severity, const char* category, const char* log_id, const char* place,",
        "                               const char* message) noexcept nogil",
        "    ctypedef void* (*OrtMakeThread)(void* options, void (*work)(void*) noexcept nogil, void* argument) noexcept nogil",
        "    ctypedef void (*OrtJoinThread)(void* thread) noexcept nogil",
        "    cdef cppclass Api:",
        "        void bind(const void* const* table, uint32_t version)"]
    for name, (result, arguments) in (USED | OPTIONAL).items():
        result = "cpp_bool" if result == "bool" else result
        lines.append(f"        {result} (*{name})({arguments})~noexcept~nogil")
    return join(lines)


def main(arguments: list[str]) -> None:
    """Regenerates both files, and the list of entries when a header is given."""
    if arguments:
        version, entries = read_header(Path(arguments[0]).read_text())
        head = f"# Entries of struct OrtApi in order, with the minor version that brought each; from ORT_API_VERSION {version}.\n"
        ENTRIES.write_text(head + "".join(f"{name} {since}\n" for name, since in entries))
    HEADER.write_text(render(*read_entries(ENTRIES.read_text())))
    DECLARATIONS.write_text(render_declarations())


if __name__ == "__main__":
    main(sys.argv[1:])
