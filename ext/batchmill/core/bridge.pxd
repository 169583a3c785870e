# Cold calls up to Python and their answers down.
from libc.stdint cimport int32_t, int64_t
from libcpp cimport bool as cpp_bool
from libcpp.string cimport string
from libcpp.vector cimport vector

from batchmill.core.front cimport ColdCall as NativeCall, ColdReply

cdef extern from "bridge.hpp" namespace "batchmill" nogil:
    int kOpen, kMessage, kHalfClose, kCancel, kCompressed, kInferred

    cdef cppclass ColdEvent:
        NativeCall* call
        int kind
        string payload
        int32_t status
        int64_t json_size

    void drop(NativeCall* call)

    cdef cppclass ColdQueue:
        int64_t open_calls, max_calls, max_bytes
        int wake_fd
        cpp_bool push(NativeCall* call, int kind, string payload)
        cpp_bool push(NativeCall* call, int kind, string payload, int32_t status, int64_t json_size)
        cpp_bool pop(ColdEvent* event)
        void ended()

    cdef cppclass ColdReplies:
        int wake_fd
        void push(ColdReply* part)
        void take(vector[ColdReply*]* all)


cdef class Bridge:
    cdef ColdQueue* queue                   # owned by the server
    cdef vector[ColdReplies*] replies       # one an I/O thread; owned by the server
    cdef dict calls                         # address -> ColdCall, while it is open
    cdef object server                      # keeps queue and replies alive


cdef class ColdCall:
    cdef NativeCall* native                 # one reference
    cdef Bridge bridge
    cdef bint ended
    cdef void send(self, ColdReply* part)
