# Models in ONNX Runtime, loaded from files, and runs of them without the GIL.
from libc.stdint cimport int32_t, uint8_t
from libcpp.string cimport string
from libcpp.vector cimport vector

from batchmill.core.ort_api cimport OrtRunOptions, OrtSession, OrtValue
from batchmill.core.ort_library cimport LoadOptions
from batchmill.core.status cimport Status
from batchmill.core.tensor cimport Buffer, TensorSpec, TensorView

cdef extern from "ort.hpp" namespace "batchmill" nogil:
    cdef cppclass OrtModel:
        OrtSession* session         # owned
        vector[TensorSpec] inputs, outputs                      # -1: free
        vector[vector[string]] input_dims, output_dims          # an axis's symbolic name; empty: it has none

    cdef cppclass OutputSet:
        vector[TensorView] views    # of the outputs asked for, until clear() or the next run
        Buffer bytes                # BYTES outputs in raw form
        void clear()                # gives the runtime's memory back; done by the destructor too
        # run()'s own.
        vector[OrtValue*] values, given
        Buffer aligned
        vector[const char*] input_names, output_names
        vector[size_t] offsets
        void (*release)(OrtValue*) noexcept nogil
        void drop_given()

# From here on an integer division that the processor refuses fails the run it happens in; after open_library().
cdef void catch_traps() noexcept nogil

# All of these: after initialise().
# load, load_bytes: null when it failed, and status says why. More than 1 intra_op thread: a pool of the session's own.
cdef OrtModel* load(const char* path, const LoadOptions& options, Status* status) noexcept nogil
cdef OrtModel* load_bytes(const uint8_t* content, size_t size, const LoadOptions& options, Status* status) noexcept nogil
cdef void destroy(OrtModel* model) noexcept nogil      # null is allowed; no run may be in progress

# Runs the model; any number of threads at once, each with its own OutputSet. False: status says why, outputs is empty.
# inputs[i] is the model's input number input_index[i], in raw form; its datatype is the model's, its shape is the view's.
# Data that is 64-byte aligned is used where it lies. run_options: null, or what new_run_options() gave.
cdef bint run(const OrtModel* model, const TensorView* inputs, const int32_t* input_index, size_t input_count,
              const int32_t* output_index, size_t output_count, OutputSet* outputs, Status* status,
              const OrtRunOptions* run_options) noexcept nogil
