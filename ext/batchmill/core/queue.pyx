"""The bounded queue of one model version: a sub-queue for each shape, the most urgent first, refused at once when full.

Urgency is a point in time, fixed on arrival: the deadline (earliest deadline first; Liu and Layland, 1973), or for those who have
none a fixed time after they came, which is first come, first served. Each level of priority counts as due a step later. So who
waits becomes more urgent than whoever comes later, and no level starves.
What has expired or been cancelled is dropped when its turn comes, never run.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memcmp
from libcpp.string cimport string

from batchmill.core.status cimport kCancelled, kDeadlineExceeded
from batchmill.core.tensor cimport TensorView

cdef extern from * nogil:
    """
    #include "queue.hpp"
    static inline void batchmill_lock(batchmill::RequestQueue* q) { q->mutex.lock(); }
    static inline void batchmill_unlock(batchmill::RequestQueue* q) { q->mutex.unlock(); }
    static inline void batchmill_swap_shapes(batchmill::SubQueue& a, batchmill::SubQueue& b) { if (&a != &b) std::swap(a, b); }
    """
    void lock "batchmill_lock"(RequestQueue*)
    void unlock "batchmill_unlock"(RequestQueue*)
    void swap_shapes "batchmill_swap_shapes"(SubQueue&, SubQueue&)

cdef int64_t HORIZON_NS = 2000000000        # when those are due who name no deadline
cdef int64_t PRIORITY_STEP_NS = 100000000
cdef size_t SHAPES_KEPT = 8                 # sub-queues that stay when they are empty
cdef size_t SKIPS = 8                       # requests too large for the rest of a batch that are passed over
cdef uint64_t MIX = 0x9E3779B97F4A7C15      # Fibonacci hashing (Knuth, vol. 3, 6.4)


cdef inline int64_t rows_of(const InferRequest* request) noexcept nogil:
    return request.rows if request.rows > 0 else 1


cdef int64_t urgency_of(RequestQueue* queue, const InferRequest* request) noexcept nogil:
    cdef int64_t due = request.deadline_ns if request.deadline_ns else request.times.queued + HORIZON_NS
    cdef int32_t levels = queue.priority_levels.load()
    cdef uint64_t level = request.priority
    queue.mixed = queue.mixed or request.deadline_ns != 0 or levels > 0
    if levels == 0:
        return due
    if level == 0 or level > <uint64_t> levels:
        level = <uint64_t> queue.default_priority.load()
    return due + <int64_t> level * PRIORITY_STEP_NS


# Shapes.
cdef uint64_t shape_hash(const InferRequest* request) noexcept nogil:
    cdef uint64_t mixed = 0
    cdef const TensorView* tensor
    cdef size_t index
    cdef int axis
    for index in range(request.inputs.size()):
        tensor = &request.inputs[index]
        mixed = (mixed ^ (<uint64_t> <uint8_t> tensor.dtype << 8 | <uint64_t> tensor.shape.rank)) * MIX
        for axis in range(1, tensor.shape.rank):
            mixed = (mixed ^ mixed >> 29 ^ <uint64_t> tensor.shape.dims[axis]) * MIX
    return mixed


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


cdef SubQueue* sub_queue_of(RequestQueue* queue, const InferRequest* request) noexcept nogil:
    """Equal hashes are not enough: callers choose their shapes. Those who wait are compared."""
    cdef uint64_t shape = shape_hash(request)
    cdef bint alone = request.rows == 0
    cdef SubQueue fresh
    cdef SubQueue* one
    cdef size_t index
    for index in range(queue.shapes.size()):
        one = &queue.shapes[index]
        if one.shape == shape and one.alone == alone and (alone or one.size() == 0 or same_key(one.top().request, request)):
            return one
    fresh.shape, fresh.alone = shape, alone
    queue.shapes.push_back(fresh)
    return &queue.shapes.back()


cdef void forget_empty(RequestQueue* queue) noexcept nogil:
    cdef size_t index = 0
    while queue.shapes.size() > SHAPES_KEPT and index < queue.shapes.size():
        if queue.shapes[index].size():
            index += 1
        else:
            swap_shapes(queue.shapes[index], queue.shapes.back())
            queue.shapes.pop_back()


cdef SubQueue* most_urgent(RequestQueue* queue) noexcept nogil:
    """The sub-queue whose top is; NULL: all are empty."""
    cdef SubQueue* found = NULL
    cdef SubQueue* one
    cdef size_t index
    for index in range(queue.shapes.size()):
        one = &queue.shapes[index]
        if one.size() and (found == NULL or found.top() < one.top()):
            found = one
    return found


cdef int64_t oldest(RequestQueue* queue) noexcept nogil:
    cdef int64_t found = 0, queued
    cdef size_t index, at, most
    for index in range(queue.shapes.size()):
        most = queue.shapes[index].size()
        if most and not queue.mixed:
            most = 1        # the order is that of arrival
        for at in range(most):
            queued = queue.shapes[index].at(at).request.times.queued
            if found == 0 or queued < found:
                found = queued
    return found


cdef void look_again(RequestQueue* queue) noexcept nogil:
    """After something was taken."""
    cdef SubQueue* top = most_urgent(queue)
    queue.mixed = queue.mixed and top != NULL
    queue.oldest_ns.store(oldest(queue))
    queue.urgent_ns.store(top.top().urgency_ns if top != NULL else 0)
    forget_empty(queue)


# In and out.
cdef bint put(RequestQueue* queue, InferRequest* request) noexcept nogil:
    cdef bint accepted, first
    cdef int64_t rows = rows_of(request)
    cdef Waiting one
    lock(queue)
    # An empty queue takes any one request: what is larger than the bound would otherwise never be served.
    first = queue.requests.load() == 0
    accepted = first or queue.rows.load() + rows <= queue.max_rows.load()
    if accepted:
        request.next = NULL
        queue.arrivals += 1
        one.urgency_ns, one.number, one.request = urgency_of(queue, request), queue.arrivals, request
        sub_queue_of(queue, request).push(one)
        if first or request.times.queued < queue.oldest_ns.load():
            queue.oldest_ns.store(request.times.queued)
        if first or one.urgency_ns < queue.urgent_ns.load():
            queue.urgent_ns.store(one.urgency_ns)
        queue.count(rows, 1)
    unlock(queue)
    return accepted


cdef bint is_dead(InferRequest* request, int64_t now_ns) noexcept nogil:
    if request.cancelled.load():
        request.status.set(kCancelled, b"CANCELLED", string(b"the caller has gone"))
        return True
    if request.deadline_ns and request.deadline_ns <= now_ns:
        request.status.set(kDeadlineExceeded, b"DEADLINE_EXCEEDED", string(b"the deadline passed before the run started"))
        return True
    return False


cdef void let_go(RequestQueue* queue, SubQueue* sub) noexcept nogil:
    queue.count(-rows_of(sub.top().request), -1)
    sub.pop()


cdef void drop_top(RequestQueue* queue, SubQueue* sub, Taken* taken) noexcept nogil:
    cdef InferRequest* request = sub.top().request
    let_go(queue, sub)
    request.next = taken.dropped
    taken.dropped = request


cdef void fill(RequestQueue* queue, SubQueue* sub, int64_t max_rows, int64_t now_ns, Taken* taken) noexcept nogil:
    """The batch from that sub-queue, whose top is alive. What does not fit any more waits on, and smaller ones may come before it."""
    cdef vector[Waiting] skipped
    cdef InferRequest* last = NULL
    cdef InferRequest* request
    cdef size_t index
    while sub.size() and taken.rows < max_rows and skipped.size() < SKIPS:
        request = sub.top().request
        if is_dead(request, now_ns):
            drop_top(queue, sub, taken)
        elif last == NULL or (not sub.alone and taken.rows + request.rows <= max_rows):
            let_go(queue, sub)
            request.next = NULL
            if last == NULL:
                taken.batch = request
            else:
                last.next = request
            last = request
            taken.rows += rows_of(request)
            taken.count += 1
        elif sub.alone:
            break
        else:
            skipped.push_back(sub.top())
            sub.pop()
    for index in range(skipped.size()):
        sub.push(skipped[index])


cdef Taken take(RequestQueue* queue, int64_t max_rows, int64_t now_ns) noexcept nogil:
    cdef Taken taken
    cdef SubQueue* sub
    taken.batch = taken.dropped = NULL
    taken.rows = taken.count = 0
    lock(queue)
    sub = most_urgent(queue)
    while sub != NULL and taken.batch == NULL:
        if is_dead(sub.top().request, now_ns):
            drop_top(queue, sub, &taken)
            sub = most_urgent(queue)
        else:
            fill(queue, sub, max_rows, now_ns, &taken)
    look_again(queue)
    unlock(queue)
    return taken
