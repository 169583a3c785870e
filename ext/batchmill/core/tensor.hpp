// What a tensor is on its way through the server: a name, a datatype, a shape, and bytes that somebody else owns.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace batchmill {

// The datatypes of the v2 protocol, in the order of Triton's model_config enum.
enum class DataType : uint8_t {
    kInvalid = 0, kBool, kUint8, kUint16, kUint32, kUint64, kInt8, kInt16, kInt32, kInt64, kFp16, kFp32, kFp64, kBytes, kBf16,
};

constexpr int kMaxRank = 16;  // ONNX models rarely pass 8; a shape with more axes is refused, not stored

struct Shape {
    int32_t rank = 0;
    int64_t dims[kMaxRank];  // only the first rank are set; -1 in a signature: any size
};

// One tensor in raw form: row-major, little-endian, no padding; BYTES elements are a uint32 length and the bytes each.
// The view owns nothing: name and data live in the body or the arena of the request that holds it.
struct TensorView {
    std::string_view name;
    DataType dtype = DataType::kInvalid;
    Shape shape;
    const uint8_t* data = nullptr;
    size_t size = 0;  // bytes
};

// One input or output in a model's signature.
struct TensorSpec {
    std::string name;
    DataType dtype = DataType::kInvalid;
    Shape shape;          // -1: free
    bool ranked = true;   // false: the model gives no shape, any fits; shape has rank 0 then
};

}  // namespace batchmill
