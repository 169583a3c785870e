# The gRPC code numbers, what HTTP says for them, and error texts that are safe to send.
from libc.stdint cimport int32_t, int64_t
from libcpp.string cimport string
from libcpp.string_view cimport string_view

cdef extern from "message.hpp" namespace "batchmill" nogil:
    enum Code "batchmill::Code":
        kOk, kCancelled, kUnknown, kInvalidArgument, kDeadlineExceeded, kNotFound, kAlreadyExists
        kPermissionDenied, kResourceExhausted, kFailedPrecondition, kAborted, kOutOfRange, kUnimplemented
        kInternal, kUnavailable, kDataLoss, kUnauthenticated

    cdef cppclass Status:
        Code code
        int32_t http_status         # 0: the code's usual one
        const char* reason          # a static string such as "QUEUE_FULL"
        string message
        int64_t retry_ms            # when to come back; 0: the reason's usual time
        bint ok()
        void set(Code, const char*, string)
        void clear()

cdef int http_status_of(const Status& status) noexcept nogil
# When to come back; 0: the same would be refused again. In seconds: rounded up.
cdef int64_t retry_after_ms(const Status& status) noexcept nogil
cdef int64_t retry_after_secs(const Status& status) noexcept nogil

# An answer over the server's limit. tensors: bytes of its outputs.
cdef void set_too_large(Status& status, int64_t tensors, int64_t limit) noexcept nogil

# Appends echoed input: cut to 200 characters, control characters and bytes that are no UTF-8 replaced.
cdef void append_echo(string& text, string_view given) noexcept nogil

# Bytes of the well-formed UTF-8 character at `at`, 0 if there is none.
cdef size_t utf8_length(const unsigned char* at, size_t left) noexcept nogil
