# Who is served next among the versions that have work for the executors, and what their batch may be.
from libc.stdint cimport int32_t, int64_t
from libcpp cimport bool as cpp_bool
from libcpp.atomic cimport atomic
from libcpp.vector cimport vector

from batchmill.core.batcher cimport BatchLimits
from batchmill.core.histogram cimport CloseReason
from batchmill.core.queue cimport Rules, Taken
from batchmill.core.router cimport ModelVersion

cdef extern from "turns.hpp" namespace "batchmill" nogil:
    cdef cppclass Turns:
        vector[ModelVersion*] due
        double served_ns
        const ModelVersion* last
        int64_t changed_ns
        atomic[int64_t] turn_ns
        atomic[cpp_bool] draining
        atomic[int32_t] due_count

# What the version's settings say of its batches now.
cdef BatchLimits limits_of(Turns* turns, ModelVersion* version) noexcept nogil

# A version that has rows and a free instance waits for its turn.
cdef void line_up(Turns* turns, ModelVersion* version) noexcept nogil
cdef void step_out(Turns* turns, ModelVersion* version) noexcept nogil

# Removes and returns who is served next. NULL: nobody now; look again at wait_until (0: when rows arrive).
cdef ModelVersion* next_turn(Turns* turns, int64_t now, int64_t* wait_until, CloseReason* reason) noexcept nogil

# What a batch of its may be. shares: other models may want their turn.
cdef Rules rules_of(Turns* turns, ModelVersion* version, bint shares, int64_t now) noexcept nogil

# A batch of its was started, and has ended.
cdef void started(Turns* turns, ModelVersion* version, const Taken& taken, int64_t now) noexcept nogil
cdef void ended(Turns* turns, ModelVersion* version, const Taken& taken, int64_t began, int64_t now) noexcept nogil
