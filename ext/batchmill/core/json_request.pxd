# The JSON part of a REST infer body.
from libc.stdint cimport int64_t
from libcpp.vector cimport vector

from batchmill.core.json_scanner cimport Scanner
from batchmill.core.message cimport InferRequest

# binary_data_size of each input, -1 where data is in the JSON: there TensorView.data is an offset into the arena.
cdef bint read_request(Scanner* scanner, InferRequest* request, vector[int64_t]& binary_sizes) noexcept nogil
