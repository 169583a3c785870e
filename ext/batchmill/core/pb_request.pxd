# ModelInferRequest in, without protobuf and without copies.
from libc.stdint cimport uint8_t
from libcpp.string_view cimport string_view

from batchmill.core.message cimport InferRequest
from batchmill.core.tensor cimport DataType

# request.body holds the message. False: request.status says why. Tensors are views into body, or arena when decoded.
cdef bint parse(InferRequest* request) noexcept nogil

# name=1, version=2 of ModelReadyRequest, or service=1 of HealthCheckRequest. False: no such message.
cdef bint parse_two_strings(const uint8_t* data, size_t size, string_view* first, string_view* second) noexcept nogil

# The field of InferTensorContents that carries a datatype; 0: it travels only raw.
cdef int contents_field(DataType dtype) noexcept nogil
