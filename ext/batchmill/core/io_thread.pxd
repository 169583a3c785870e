# The epoll loop of one I/O thread.
from batchmill.core.intake cimport IoThread

cdef void* run(void* thread) noexcept nogil      # a pthread's body; argument: IoThread*, connected to its sink
