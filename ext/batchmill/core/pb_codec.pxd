# gRPC messages of the hot path: ModelInferRequest in, ModelInferResponse out, without protobuf and without copies.
from libc.stdint cimport uint8_t
from libcpp.string cimport string
from libcpp.string_view cimport string_view

from batchmill.core.message cimport InferRequest
from batchmill.core.tensor cimport Buffer, TensorView

# request.body holds the message. False: request.status says why. Tensors are views into body, or arena when decoded.
cdef bint parse(InferRequest* request) noexcept nogil

# Writes the framed answer (5-byte prefix included) to request.response from response_start on.
cdef bint encode(InferRequest* request, string_view model, string_view version, const TensorView* outputs, size_t count) noexcept nogil

# A framed ModelStreamInferResponse with error_message.
cdef bint encode_stream_error(InferRequest* request, string_view message) noexcept nogil

# name=1, version=2 of ModelReadyRequest, or service=1 of HealthCheckRequest. False: no such message.
cdef bint parse_two_strings(const uint8_t* data, size_t size, string_view* first, string_view* second) noexcept nogil
