# Options of a run.
from batchmill.core.ort_api cimport OrtRunOptions

cdef OrtRunOptions* new_run_options() noexcept nogil   # null: no memory
cdef void delete_run_options(OrtRunOptions* options) noexcept nogil
cdef void set_terminate(OrtRunOptions* options, bint terminate) noexcept nogil   # from any thread; runs end between two nodes
cdef void shrink_arena_after(OrtRunOptions* options, bint shrink) noexcept nogil   # it gives back to the system what no run uses
