# The thread that runs shadows.
from batchmill.core.router cimport ShadowLine

# Starts the thread, unless it runs. False: there is no memory for it.
cdef bint start(ShadowLine* line) noexcept nogil

# Ends it, and the run that it has in hand.
cdef void stop(ShadowLine* line) noexcept nogil

# What waits on when no thread runs any more.
cdef void drop_all(ShadowLine* line) noexcept nogil
