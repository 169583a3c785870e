# The thread that runs shadows.
from libc.stdint cimport uint64_t
from libcpp cimport bool as cpp_bool

from batchmill.core.message cimport InferRequest
from batchmill.core.router cimport Shadow, ShadowLine, Version

# Starts the thread, unless it runs. False: there is no memory for it.
cdef bint start(ShadowLine* line) noexcept nogil

# Ends it, and the run that it has in hand.
cdef void stop(ShadowLine* line) noexcept nogil

# What waits on when no thread runs any more.
cdef void drop_all(ShadowLine* line) noexcept nogil

# Tells a run that has taken more of the processor than its version's run_timeout_ms to end. To be called every now and then; never waits.
cdef void end_overdue_shadow(ShadowLine* line) noexcept nogil

# The version's shadow of that epoch: the one in force, or a new one in its place.
cdef Shadow* shadow_in_force(Version version, uint64_t epoch, dict settings)

# Ends a version's shadows but those that are wanted, and forgets those that nobody holds any more.
cdef void end_shadows(Version version, uint64_t wanted)
