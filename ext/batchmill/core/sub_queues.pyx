"""The requests of a queue that wait, by shape: a different shape never ends a batch, it only waits beside it."""

cdef extern from * nogil:
    """
    #include "sub_queues.hpp"
    static inline void batchmill_swap_shapes(batchmill::SubQueue& a, batchmill::SubQueue& b) { if (&a != &b) std::swap(a, b); }
    """
    void swap_shapes "batchmill_swap_shapes"(SubQueue&, SubQueue&)

cdef size_t SHAPES_KEPT = 8                 # sub-queues that stay when they are empty


cdef SubQueue* find_sub_queue(vector[SubQueue]& shapes, const InferRequest* request, uint64_t shape) noexcept nogil:
    """Equal hashes are not enough: callers choose their shapes. Those who wait are compared."""
    cdef bint alone = request.rows == 0
    cdef SubQueue* one
    cdef size_t index
    for index in range(shapes.size()):
        one = &shapes[index]
        if one.shape == shape and one.alone == alone and (alone or one.size() == 0 or same_shape(one.top().request, request)):
            return one
    return NULL


cdef SubQueue* add_sub_queue(vector[SubQueue]& shapes, const InferRequest* request, uint64_t shape) noexcept nogil:
    cdef SubQueue fresh
    fresh.shape, fresh.alone = shape, request.rows == 0
    shapes.push_back(fresh)
    return &shapes.back()


cdef void forget_empty(vector[SubQueue]& shapes) noexcept nogil:
    cdef size_t index = 0
    while shapes.size() > SHAPES_KEPT and index < shapes.size():
        if shapes[index].size():
            index += 1
        else:
            swap_shapes(shapes[index], shapes.back())
            shapes.pop_back()


cdef SubQueue* most_urgent(vector[SubQueue]& shapes) noexcept nogil:
    cdef SubQueue* found = NULL
    cdef SubQueue* one
    cdef size_t index
    for index in range(shapes.size()):
        one = &shapes[index]
        if one.size() and (found == NULL or found.top() < one.top()):
            found = one
    return found


cdef int64_t oldest(vector[SubQueue]& shapes, bint mixed) noexcept nogil:
    cdef int64_t found = 0, queued
    cdef size_t index, at, most
    for index in range(shapes.size()):
        most = shapes[index].size()
        if most and not mixed:
            most = 1        # the order of urgency is that of arrival
        for at in range(most):
            queued = shapes[index].at(at).request.times.queued
            if found == 0 or queued < found:
                found = queued
    return found
