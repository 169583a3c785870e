"""What an answer is known by when its ground truth comes: version, route generation, time and prediction, sealed.

So nothing is remembered of any answer.
"""

from libc.stdint cimport int8_t, int16_t, int32_t, uint8_t
from libc.string cimport memcpy
from libcpp cimport bool as cpp_bool

from batchmill.core.closeness cimport value_at
from batchmill.core.tensor cimport DataType, datatype_of, element_bytes, element_count, kMaxRank

cdef extern from "feedback_token.hpp" namespace "batchmill" nogil:
    cdef cppclass SealKey:
        uint64_t first, second

    cdef cppclass SharedKey:
        void set(const SealKey& key)
        SealKey get()

    uint64_t sip_hash(const SealKey& key, const void* data, size_t size)
    void write_token(const SealKey& key, string_view model, const FeedbackToken& token, char* target)
    cpp_bool read_token(const SealKey& key, string_view model, string_view text, FeedbackToken* token)

cdef extern from * nogil:
    """
    #include <ctime>

    static batchmill::SharedKey batchmill_seal;
    """
    SharedKey shared_key "batchmill_seal"
    int64_t wall_time_s "time"(void*)


cdef inline bint is_float(DataType dtype) noexcept nogil:
    return dtype == DataType.kFp32 or dtype == DataType.kFp64 or dtype == DataType.kFp16 or dtype == DataType.kBf16


cdef uint32_t greatest_single(const float* values, uint32_t count) noexcept nogil:
    """What greatest() finds; most classifiers have this datatype."""
    cdef uint32_t at, found = kNoPrediction
    cdef float most = 0
    for at in range(count):
        if values[at] == values[at] and (found == kNoPrediction or values[at] > most):
            found, most = at, values[at]
    return found


cdef uint32_t greatest(const TensorView* output, int64_t count) noexcept nogil:
    """The first place of the greatest number; NaN is none."""
    cdef size_t width = element_bytes(output.dtype)
    cdef uint32_t at, found = kNoPrediction
    cdef double value, most = 0
    for at in range(<uint32_t> count):
        value = value_at(output.data + at * width, output.dtype)
        if value == value and (found == kNoPrediction or value > most):
            found, most = at, value
    return found


cdef int64_t integer_at(const uint8_t* at, DataType dtype) noexcept nogil:
    """-1: one that is no class."""
    cdef int64_t value = 0
    cdef size_t width = element_bytes(dtype)
    memcpy(&value, at, width)
    if dtype == DataType.kInt8:
        return <int8_t> value
    if dtype == DataType.kInt16:
        return <int16_t> value
    if dtype == DataType.kInt32:
        return <int32_t> value
    return value


cdef uint32_t prediction_of(const TensorView* output) noexcept nogil:
    cdef int64_t value, count = element_count(output.shape)
    cdef int rank = output.shape.rank
    if is_float(output.dtype):
        if rank == 0 or count < 2 or count != output.shape.dims[rank - 1] or count >= kNoPrediction:
            return kNoPrediction
        if output.dtype == DataType.kFp32:
            return greatest_single(<const float*> output.data, <uint32_t> count)
        return greatest(output, count)
    if count != 1 or output.dtype == DataType.kBytes or output.dtype == DataType.kInvalid:
        return kNoPrediction
    value = integer_at(output.data, output.dtype)
    return <uint32_t> value if 0 <= value < kNoPrediction else kNoPrediction


cdef void make_token(string_view model, FeedbackToken token, char* target) noexcept nogil:
    token.made_s = <uint32_t> wall_time_s(NULL)
    write_token(shared_key.get(), model, token, target)


cdef SealKey key_of(bytes key) except *:
    cdef SealKey made
    if len(key) != 16:
        raise ValueError("16 bytes wanted")
    memcpy(&made.first, <const char*> key, 8)
    memcpy(&made.second, <const char*> key + 8, 8)
    return made


cdef string_view view(bytes text):
    return string_view(<const char*> text, len(text))


def set_key(bytes key) -> None:
    """16 random bytes, by which all tokens of this process are sealed: before the first version is asked for tokens."""
    shared_key.set(key_of(key))


def read(str model, str text) -> tuple:
    """(version, route generation, made in seconds since 1970, prediction or None, nonce); None: it is no token of this model and key."""
    cdef FeedbackToken token
    cdef bytes name = model.encode(), given = text.encode(errors="replace")
    if not read_token(shared_key.get(), view(name), view(given), &token):
        return None
    return token.version, token.generation, token.made_s, None if token.prediction == kNoPrediction else token.prediction, token.nonce


# What tests see.
def sealed(bytes key, str model, uint64_t version, uint32_t generation, uint32_t made_s, prediction, uint64_t nonce) -> str:
    """The token with these fields. prediction: None: there is none."""
    cdef FeedbackToken token
    cdef bytes name = model.encode()
    cdef char target[64]
    token.version, token.generation, token.made_s, token.nonce = version, generation, made_s, nonce
    token.prediction = kNoPrediction if prediction is None else prediction
    write_token(key_of(key), view(name), token, target)
    return target[:kTokenChars].decode()


def hashed(bytes key, bytes data) -> int:
    """SipHash-2-4, 64 bits."""
    return sip_hash(key_of(key), <const char*> data, len(data))


def predicted(str datatype, shape, bytes raw) -> int | None:
    """The class that an output says; None: it says none."""
    cdef TensorView output
    cdef bytes name = datatype.encode()
    cdef int axis
    if len(shape) > kMaxRank:
        raise ValueError("more than 16 dimensions")
    output.dtype, output.data, output.size = datatype_of(view(name)), <const uint8_t*> <const char*> raw, len(raw)
    output.shape.rank = <int> len(shape)
    for axis in range(output.shape.rank):
        output.shape.dims[axis] = shape[axis]
    if element_count(output.shape) * <int64_t> element_bytes(output.dtype) != <int64_t> output.size:
        raise ValueError("no elements of that shape")
    found = prediction_of(&output)
    return None if found == kNoPrediction else found
