# A request with more rows than a batch may have runs in parts, as if its caller had sent several.
from libc.stdint cimport int64_t

from batchmill.core.message cimport InferRequest

# Makes the parts of a request that has more rows than that. Of very many rows they are larger: there are 4096 at most.
cdef void split(InferRequest* request, int64_t max_rows) noexcept nogil

# Of requests that are answered or failed (linked by next) those that have no parts, and those whose last part is among them.
cdef InferRequest* join(InferRequest* answered) noexcept nogil
