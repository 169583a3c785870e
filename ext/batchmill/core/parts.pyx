"""A request with more rows than a batch may have runs in parts, as if its caller had sent several.

Its parts wait and run like other requests: others may go between them, share a batch with the last of them, and executors run them at
the same time. Whoever ends the last part writes the answer. When one fails the whole request does, and what is left of it is dropped.
"""

from libc.string cimport memcmp
from libcpp.string cimport string
from libcpp.vector cimport vector

from batchmill.core.batch cimport bytes_elements, write_answer
from batchmill.core.router cimport ModelVersion
from batchmill.core.status cimport kCancelled, kInternal, kResourceExhausted
from batchmill.core.tensor cimport Buffer, DataType, TensorView

cdef int64_t PARTS_MAX = 4096       # each takes a thousand bytes, and some 0.2 us of an I/O thread; of more rows they are larger


cdef void cut(InferRequest* part, const InferRequest* whole, int64_t first, vector[size_t]& starts) noexcept nogil:
    """The part's rows of all inputs. starts: by input, where they begin; then where they end."""
    cdef TensorView* tensor
    cdef int64_t elements
    cdef size_t index, end
    cdef int axis
    part.inputs = whole.inputs
    for index in range(part.inputs.size()):
        tensor = &part.inputs[index]
        end = starts[index]
        if tensor.dtype == DataType.kBytes:
            elements = part.rows
            for axis in range(1, tensor.shape.rank):
                elements *= tensor.shape.dims[axis]
            end = bytes_elements(tensor, end, elements)
        else:
            end += tensor.size // <size_t> whole.rows * <size_t> part.rows
        tensor.data += starts[index]
        tensor.size = end - starts[index]
        tensor.shape.dims[0] = part.rows
        starts[index] = end


cdef InferRequest* new_part(InferRequest* whole, int64_t rows) noexcept nogil:
    cdef InferRequest* part = new InferRequest()
    part.whole = whole
    part.rows = rows
    part.length, part.bucket = whole.length, whole.bucket
    part.outputs = whole.outputs
    part.priority = whole.priority
    part.max_response_bytes = whole.max_response_bytes
    part.answer_by_ns, part.deadline_ns, part.objective_ns = whole.answer_by_ns, whole.deadline_ns, whole.objective_ns
    part.times = whole.times
    return part


cdef void split(InferRequest* request, int64_t max_rows) noexcept nogil:
    cdef InferRequest** end = &request.parts
    cdef int64_t first = 0, each = max(max_rows, (request.rows + PARTS_MAX - 1) // PARTS_MAX)
    cdef vector[size_t] starts
    starts.resize(request.inputs.size())
    request.parts_left.store((request.rows + each - 1) // each)
    while first < request.rows:
        end[0] = new_part(request, min(each, request.rows - first))
        cut(end[0], request, first, starts)
        first += end[0].rows
        end = &end[0].next_part


# Together again.
cdef const InferRequest* guilty(const InferRequest* whole) noexcept nogil:
    """The first part that failed for a reason of its own; NULL: none has failed."""
    cdef const InferRequest* part = whole.parts
    cdef const InferRequest* found = NULL
    while part != NULL:
        if not part.status.ok() and (found == NULL or found.status.code == kCancelled):
            found = part
        part = part.next_part
    return found


cdef bint gather_output(InferRequest* whole, size_t index, Buffer* bytes, TensorView* output) noexcept nogil:
    """One output of all parts, at the end of bytes. False: they do not fit together."""
    cdef const TensorView* some
    cdef InferRequest* part = whole.parts
    cdef size_t start = bytes.size
    output[0] = part.inputs[index]
    output.shape.dims[0] = whole.rows
    while part != NULL:
        some = &part.inputs[index]
        if some.shape.rank != output.shape.rank or memcmp(some.shape.dims + 1, output.shape.dims + 1,
                                                          (some.shape.rank - 1) * sizeof(int64_t)):
            whole.status.set(kInternal, b"WRONG_ROWS", string(b"the model's outputs have other shapes from batch to batch"))
            return False
        bytes.append(some.data, some.size)      # there is room for all of them
        part = part.next_part
    output.data = bytes.data + start
    output.size = bytes.size - start
    return True


cdef void tell_times(InferRequest* whole) noexcept nogil:
    """Assembly is that of its first part; its run lasts until the end of the last."""
    cdef const InferRequest* part = whole.parts
    whole.times.started, whole.times.gathered = part.times.started, part.times.gathered
    while part != NULL:
        whole.times.started = min(whole.times.started, part.times.started)
        whole.times.gathered = min(whole.times.gathered, part.times.gathered)
        whole.times.computed = max(whole.times.computed, part.times.computed)
        whole.times.encoded = max(whole.times.encoded, part.times.encoded)
        part = part.next_part


cdef void answer(InferRequest* whole) noexcept nogil:
    cdef const InferRequest* failed = guilty(whole)
    cdef Buffer bytes
    cdef vector[TensorView] outputs
    cdef size_t index
    if failed != NULL:
        whole.status = failed.status
        return
    tell_times(whole)
    if not bytes.reserve(<size_t> whole.parts_bytes.load()):
        whole.status.set(kResourceExhausted, b"OUT_OF_MEMORY", string(b"no memory for the answer"))
        return
    outputs.resize(whole.parts.inputs.size())
    for index in range(outputs.size()):
        if not gather_output(whole, index, &bytes, &outputs[index]):
            return
    write_answer(<ModelVersion*> whole.version, whole, outputs.data(), outputs.size())


cdef InferRequest* join(InferRequest* answered) noexcept nogil:
    cdef InferRequest* kept = NULL
    cdef InferRequest** end = &kept
    cdef InferRequest* one
    while answered != NULL:
        one = answered
        answered = one.next
        if one.whole != NULL:
            if not one.status.ok():
                one.whole.broken.store(True)
            one = one.whole
            if one.parts_left.fetch_sub(1) != 1:    # after it, another thread may be done with all of them
                continue
            answer(one)
        end[0] = one
        end = &one.next
    end[0] = NULL
    return kept
