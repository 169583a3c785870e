# REST bodies: JSON, or JSON followed by binary tensors, to and from the canonical raw form.
from libc.stdint cimport int64_t, uint8_t
from libcpp.string_view cimport string_view

from batchmill.core.message cimport InferRequest
from batchmill.core.tensor cimport Buffer, TensorView

# json_size -1: all of the body is JSON; 0: a raw request; else Inference-Header-Content-Length. False: request.status says why.
cdef bint parse(InferRequest* request, const uint8_t* body, size_t size, int64_t json_size) noexcept nogil

# Appends the answer; json_size: bytes of JSON when an output is binary, else -1. False: request.status says why.
cdef bint encode(InferRequest* request, string_view model, string_view version, const TensorView* outputs, size_t count,
                 Buffer* out, int64_t* json_size) noexcept nogil
