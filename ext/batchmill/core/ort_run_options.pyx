"""Options of a run: whether it is to end, and whether the runtime's arena shrinks after it."""

from batchmill.core.ort_api cimport Api, OrtStatus
from batchmill.core.ort_library cimport runtime

cdef const Api* api = &runtime().api


cdef OrtRunOptions* new_run_options() noexcept nogil:
    cdef OrtRunOptions* options = NULL
    cdef OrtStatus* error = api.CreateRunOptions(&options)
    if error != NULL:
        api.ReleaseStatus(error)
    return options


cdef void delete_run_options(OrtRunOptions* options) noexcept nogil:
    api.ReleaseRunOptions(options)


cdef void set_terminate(OrtRunOptions* options, bint terminate) noexcept nogil:
    cdef OrtStatus* error = api.RunOptionsSetTerminate(options) if terminate else api.RunOptionsUnsetTerminate(options)
    if error != NULL:
        api.ReleaseStatus(error)


cdef void shrink_arena_after(OrtRunOptions* options, bint shrink) noexcept nogil:
    cdef OrtStatus* error = api.AddRunConfigEntry(options, b"memory.enable_memory_arena_shrinkage", b"cpu:0" if shrink else b"")
    if error != NULL:
        api.ReleaseStatus(error)
