# Rows of many requests into one aligned buffer an input, and the answers back out.
from libc.stdint cimport int32_t, int64_t
from libcpp cimport bool as cpp_bool
from libcpp.vector cimport vector

from batchmill.core.message cimport InferRequest
from batchmill.core.ort cimport OrtRunOptions, OutputSet
from batchmill.core.router cimport ModelVersion
from batchmill.core.status cimport Status
from batchmill.core.tensor cimport Buffer, TensorView

cdef extern from "executor.hpp" namespace "batchmill" nogil:
    cdef cppclass RunLimit:
        OrtRunOptions* options
        int64_t ends_ns
        cpp_bool passed, shrinks
        void lock()
        void unlock()

    cdef cppclass Scratch:
        vector[Buffer] gathered, cut
        int64_t length
        cpp_bool uneven
        size_t padding_bytes
        vector[TensorView] inputs, sliced
        vector[int32_t] indices
        vector[size_t] cursors
        OutputSet outputs
        RunLimit limit
        int thread
        cpp_bool is_executor
        Scratch(int slot)

# scratch.inputs: what the run reads. False: no memory.
cdef bint gather(ModelVersion* version, InferRequest* batch, int64_t count, Scratch* scratch) noexcept nogil

# Encodes the answer of a request from what it asked for of the outputs.
cdef void write_answer(ModelVersion* version, InferRequest* request, const TensorView* outputs, size_t count) noexcept nogil

# Where the next `elements` BYTES elements after `start` end.
cdef size_t bytes_elements(const TensorView* tensor, size_t start, int64_t elements) noexcept nogil

# Before scratch.outputs are cut: whether they have the batch's rows, and length. False: status says so.
cdef bint begin_slices(ModelVersion* version, const InferRequest* batch, int64_t rows, Scratch* scratch, Status* status) noexcept nogil

# scratch.sliced: what a request asked for of scratch.outputs: its rows, from `first` on, cut to its own length. rows: of all its batch;
# below 0: it is alone. False: no memory for that.
cdef bint slice_outputs(ModelVersion* version, InferRequest* request, int64_t first, int64_t rows, Scratch* scratch) noexcept nogil

# Writes each request's answer from scratch.outputs, and keeps a part's until the others are there; a request whose answer cannot be written
# has its status set. False: the outputs do not have the batch's rows, or length; status says so, and nothing was written.
cdef bint scatter(ModelVersion* version, InferRequest* batch, int64_t rows, Scratch* scratch, Status* status) noexcept nogil
