# Gets an I/O thread back on its core when the kernel leaves it waiting there.
from libc.stdint cimport int64_t
from libcpp cimport bool as cpp_bool
from libcpp.atomic cimport atomic

from batchmill.core.threads cimport pthread_t

cdef extern from "pacer.hpp" namespace "batchmill" nogil:
    cdef cppclass CoreTime:
        int64_t ran_ns, waited_ns, runs

    cdef cppclass Pacer:
        int account, start_fd
        CoreTime seen
        int64_t paced_ns, looked_ns
        cpp_bool made
        pthread_t thread
        atomic[int] core
        atomic[int64_t] until_ns
        atomic[cpp_bool] ending

    CoreTime read_account(int account)

# On the I/O thread itself: at its start, every 100 ms or so, and at its end.
cdef void begin(Pacer* pacer, int64_t now) noexcept nogil
cdef void look(Pacer* pacer, int64_t now) noexcept nogil
cdef void end(Pacer* pacer) noexcept nogil
