# ModelInferResponse out, without protobuf.
from libcpp.string_view cimport string_view

from batchmill.core.message cimport InferRequest
from batchmill.core.tensor cimport TensorView

# Writes the framed answer (5-byte prefix included) to request.response from response_start on.
cdef bint encode(InferRequest* request, string_view model, string_view version, const TensorView* outputs, size_t count) noexcept nogil

# A framed ModelStreamInferResponse with error_message.
cdef bint encode_stream_error(InferRequest* request, string_view message) noexcept nogil
