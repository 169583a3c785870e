# ONNX Runtime for the modules above: what is below it, under one name, and the Python-facing model.
from batchmill.core.closeness cimport is_close
from batchmill.core.ort_api cimport OrtRunOptions
from batchmill.core.ort_library cimport LoadOptions
from batchmill.core.ort_session cimport (
    delete_run_options, destroy, load, new_run_options, OrtModel, OutputSet, run, set_terminate,
)


cdef class Model:
    cdef OrtModel* model            # owned; null only if __cinit__ failed
    cdef readonly list inputs       # (name, datatype, shape, axis names)
    cdef readonly list outputs
    cdef dict run_with(self, dict inputs, object outputs, const OrtRunOptions* options)   # run(), with options or null
