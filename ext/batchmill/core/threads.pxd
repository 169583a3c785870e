# Threads of the data plane, with names that top -H, perf and gdb show.
from libcpp cimport bool as cpp_bool

cdef extern from "<pthread.h>" nogil:
    ctypedef unsigned long pthread_t

    int pthread_join(pthread_t thread, void** result)

cdef extern from "threads.hpp" namespace "batchmill" nogil:
    # number: behind the name, which has ten letters at most; -1: none. False: there is no room for another thread.
    cpp_bool start_thread(pthread_t* thread, void* (*body)(void*) noexcept nogil, void* argument, const char* name, int number)
