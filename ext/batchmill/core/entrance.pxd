# Whether a request enters its version's queue, and what it is told if it does not.
from libc.stdint cimport int32_t, int64_t

from batchmill.core.executor cimport ExecutorPool
from batchmill.core.message cimport InferRequest
from batchmill.core.router cimport ModelVersion

# Fixes the request's points in time by what its caller and its version say.
cdef void set_deadline(ModelVersion* version, InferRequest* request) noexcept nogil

# Whether it has waited in its socket so long that it is refused: request.status says so. now: the monotonic time, ns.
cdef bint is_behind(ModelVersion* version, InferRequest* request, bint keeps_up, int32_t busy_status, int64_t now) noexcept nogil

# False: request.status says why not. busy_status: over HTTP, of those for whom there is no room; 0: the code's usual one.
cdef bint enters(ExecutorPool* pool, ModelVersion* version, InferRequest* request, int32_t busy_status, int64_t now) noexcept nogil
