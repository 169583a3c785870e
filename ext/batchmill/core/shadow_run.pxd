# Runs a batch of a shadow, and has the answers compared.
from libc.stdint cimport int64_t

from batchmill.core.batch cimport Scratch
from batchmill.core.message cimport InferRequest
from batchmill.core.router cimport Shadow, ShadowLine

# Runs and compares, one by one where they fail together. The requests stay the caller's, settled back.
cdef void run_batch(ShadowLine* line, Shadow* shadow, InferRequest* batch, int64_t rows, int64_t count, Scratch* scratch) noexcept nogil

# After the candidate's check(): gives the request's shapes their own lengths again.
cdef void settle_back(Shadow* shadow, InferRequest* request) noexcept nogil

# Tells a run that has taken more of the processor than its version's run_timeout_ms to end. To be called every now and then; never waits.
cdef void end_overdue_shadow(ShadowLine* line) noexcept nogil
