"""The bounded queue of one model version: first come, first served, refused at once when full.

What has expired or been cancelled is dropped when its turn comes, never run.
"""

from libc.string cimport memcmp
from libcpp.string cimport string

from batchmill.core.status cimport kCancelled, kDeadlineExceeded
from batchmill.core.tensor cimport TensorView

cdef extern from * nogil:
    """
    #include "queue.hpp"
    static inline void batchmill_lock(batchmill::RequestQueue* q) { q->mutex.lock(); }
    static inline void batchmill_unlock(batchmill::RequestQueue* q) { q->mutex.unlock(); }
    """
    void lock "batchmill_lock"(RequestQueue*)
    void unlock "batchmill_unlock"(RequestQueue*)


cdef bint put(RequestQueue* queue, InferRequest* request) noexcept nogil:
    cdef bint accepted
    cdef int64_t rows = request.rows if request.rows > 0 else 1
    lock(queue)
    # An empty queue takes any one request: what is larger than the bound would otherwise never be served.
    accepted = queue.head == NULL or queue.rows.load() + rows <= queue.max_rows.load()
    if accepted:
        request.next = NULL
        if queue.head == NULL:
            queue.head = request
            queue.oldest_ns.store(request.times.queued)
        else:
            queue.tail.next = request
        queue.tail = request
        queue.rows.store(queue.rows.load() + rows)
        queue.count(1)
    unlock(queue)
    return accepted


cdef bint same_key(const InferRequest* a, const InferRequest* b) noexcept nogil:
    cdef size_t index
    cdef const TensorView* x
    cdef const TensorView* y
    if a.rows == 0 or b.rows == 0 or a.inputs.size() != b.inputs.size():
        return False
    for index in range(a.inputs.size()):
        x = &a.inputs[index]
        y = &b.inputs[index]
        if x.dtype != y.dtype or x.shape.rank != y.shape.rank:
            return False
        if x.shape.rank > 1 and memcmp(x.shape.dims + 1, y.shape.dims + 1, (x.shape.rank - 1) * sizeof(int64_t)):
            return False
    return True


cdef bint is_dead(InferRequest* request, int64_t now_ns) noexcept nogil:
    if request.cancelled.load():
        request.status.set(kCancelled, b"CANCELLED", string(b"the caller has gone"))
        return True
    if request.deadline_ns and request.deadline_ns <= now_ns:
        request.status.set(kDeadlineExceeded, b"DEADLINE_EXCEEDED", string(b"the deadline passed before the run started"))
        return True
    return False


cdef Taken take(RequestQueue* queue, int64_t max_rows, int64_t now_ns) noexcept nogil:
    cdef Taken taken
    cdef InferRequest** link
    cdef InferRequest* request
    cdef InferRequest* previous = NULL
    cdef InferRequest* last = NULL
    cdef int64_t rows
    taken.batch = taken.dropped = NULL
    taken.rows = taken.count = 0
    lock(queue)
    link = &queue.head
    while link[0] != NULL and taken.rows < max_rows:
        request = link[0]
        rows = request.rows if request.rows > 0 else 1
        if is_dead(request, now_ns):
            link[0] = request.next
            request.next = taken.dropped
            taken.dropped = request
        elif taken.batch == NULL or (taken.rows + rows <= max_rows and same_key(taken.batch, request)):
            link[0] = request.next
            request.next = NULL
            if last == NULL:
                taken.batch = request
            else:
                last.next = request
            last = request
            taken.rows += rows
            taken.count += 1
        else:
            previous = request
            link = &request.next
            continue
        queue.rows.store(queue.rows.load() - rows)
        queue.count(-1)
    if link[0] == NULL:
        queue.tail = previous
    queue.oldest_ns.store(queue.head.times.queued if queue.head != NULL else 0)
    unlock(queue)
    return taken
