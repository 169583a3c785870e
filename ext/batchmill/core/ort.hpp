// A model that ONNX Runtime has loaded, and the tensors that came of one run. Made and used by ort_session; read by any module.
#pragma once
#include <cstdint>
#include <cstring>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

#include "buffer.hpp"
#include "ort_api.hpp"
#include "tensor.hpp"

namespace batchmill {

// DataType -> ONNXTensorElementDataType, and back.
inline constexpr int kToOnnx[] = {0, 9, 2, 4, 12, 13, 3, 5, 6, 7, 10, 1, 11, 8, 16};
inline constexpr DataType kFromOnnx[] = {
    DataType::kInvalid, DataType::kFp32,  DataType::kUint8, DataType::kInt8, DataType::kUint16, DataType::kInt16,
    DataType::kInt32,   DataType::kInt64, DataType::kBytes, DataType::kBool, DataType::kFp16,   DataType::kFp64,
    DataType::kUint32,  DataType::kUint64, DataType::kInvalid, DataType::kInvalid, DataType::kBf16};
// What the v2 protocol has no datatype for, from number 14 on; 16 is BF16.
inline constexpr const char* kUnservedTypes[] = {"COMPLEX64", "COMPLEX128", "BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ",
    "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "UINT4", "INT4", "FLOAT4E2M1", "UINT2", "INT2", "unknown"};
constexpr size_t kUnknownType = 12;
// ONNXType in words.
inline constexpr const char* kOnnxKinds[] = {"of an unknown kind", "a tensor", "a sequence", "a map", "an opaque value",
    "a sparse tensor", "an optional value"};
alignas(64) inline uint8_t kNoElements[64];

// The open library.
struct Runtime {
    ort::Api api;
    OrtEnv* env = nullptr;
    int32_t wide_threads = 1;            // that share a run of a session on the shared wide pool; 1: there is no such pool
    OrtMemoryInfo* cpu_memory = nullptr;
    OrtAllocator* allocator = nullptr;
};

struct LoadOptions {
    int32_t intra_op_threads = 1;        // 1: on the caller's thread, no pool; 0: on the shared wide pool
    bool memory_pattern = false;         // the runtime keeps one plan a combination of input shapes, and never forgets any
    std::vector<std::string> providers;  // "CUDAExecutionProvider", first choice first; empty: the CPU
};

// One session. Immutable after load(), so any number of threads may run it; ort.destroy() ends it when none does.
struct OrtModel {
    OrtSession* session = nullptr;
    std::vector<TensorSpec> inputs, outputs;
    std::vector<std::vector<std::string>> input_dims, output_dims;  // an axis's symbolic name; empty: it has none
};

// What one run gave, and the working memory of run(), kept from run to run. One thread at a time.
struct OutputSet {
    std::vector<OrtValue*> values;        // owned; null before a run and after clear()
    std::vector<TensorView> views;        // of the outputs asked for; names belong to the model, data to values and bytes
    Buffer bytes;                         // BYTES outputs in raw form
    Buffer aligned;                       // copies of inputs that were not 64-byte aligned
    std::vector<OrtValue*> given;         // inputs of the run in progress
    std::vector<const char*> input_names, output_names;
    std::vector<size_t> offsets;
    void (*release)(OrtValue*) = nullptr;

    OutputSet() = default;
    OutputSet(const OutputSet&) = delete;
    OutputSet& operator=(const OutputSet&) = delete;
    ~OutputSet() { clear(); }

    void drop_given() {
        for (OrtValue* value : given)
            if (value) release(value);
        given.clear();
    }
    void clear() {
        drop_given();
        for (OrtValue* value : values)
            if (value) release(value);
        values.clear();
        views.clear();
        bytes.clear(Buffer::kKeepScratchBytes);
        aligned.clear(Buffer::kKeepScratchBytes);
    }
};

// The runtime's own messages: the last few, for whoever asks. A bad request must not print.
struct RuntimeLog {
    static constexpr size_t kLines = 32;  // a failed load says 1 to 5 lines
    std::mutex lock;
    std::deque<std::string> lines;
    int64_t dropped = 0;

    void add(const char* message) {
        std::lock_guard<std::mutex> guard(lock);
        if (lines.size() == kLines) {
            ++dropped;
        } else {
            lines.emplace_back(message, strnlen(message, 1000));
        }
    }
    std::deque<std::string> take(int64_t* were_dropped) {
        std::lock_guard<std::mutex> guard(lock);
        *were_dropped = dropped;
        dropped = 0;
        return std::move(lines);
    }
};

}  // namespace batchmill
