# The data plane as Python sees it.
from libcpp.vector cimport vector

from batchmill.core.bridge cimport Bridge
from batchmill.core.intake cimport IoThread, Shared


cdef class Server:
    cdef Shared* shared
    cdef vector[IoThread*] threads
    cdef readonly Bridge bridge
    cdef int executors, signal_fd
    cdef bint started
    cdef set routed, versions   # in the table; and all that were and are not released: the data plane points at them

    cdef wake(self)
