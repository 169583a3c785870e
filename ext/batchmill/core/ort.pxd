# ONNX Runtime for the modules above: what is below it, under one name, and the Python-facing model.
from batchmill.core.closeness cimport is_close
from batchmill.core.ort_api cimport OrtRunOptions
from batchmill.core.ort_library cimport LoadOptions
from batchmill.core.ort_run_options cimport delete_run_options, new_run_options, set_terminate, shrink_arena_after
from batchmill.core.ort_session cimport destroy, load, OrtModel, OutputSet, run


cdef class Model:
    cdef OrtModel* model            # owned; null only if __cinit__ failed
    cdef readonly list inputs       # (name, datatype, shape, axis names)
    cdef readonly list outputs
    cdef dict run_with(self, dict inputs, object outputs, const OrtRunOptions* options)   # run(), with options or null
