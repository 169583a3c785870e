"""Rows of many requests into one aligned buffer an input, and the answers back out.

Gather copies; a lone request whose bytes are aligned is run where it lies. Scatter encodes each answer from its
slice of the outputs, so an answer is copied once (thrice that of a request in parts). BYTES travel raw and are cut by walking their lengths.
"""

from libc.stdint cimport uint32_t, uintptr_t
from libc.string cimport memcpy
from libcpp.string cimport string
from libcpp.string_view cimport string_view

from batchmill.core cimport json_codec, pb_response
from batchmill.core.message cimport Encoding
from batchmill.core.status cimport kResourceExhausted, set_too_large
from batchmill.core.tensor cimport DataType, kKeepScratchBytes, total_bytes

cdef extern from * nogil:
    """
    #include "executor.hpp"
    static inline void batchmill_resize(batchmill::Scratch* s, size_t inputs) {
        if (s->gathered.size() < inputs) s->gathered = std::vector<batchmill::Buffer>(inputs);
        s->inputs.resize(inputs);
    }
    """
    void resize "batchmill_resize"(Scratch* scratch, size_t inputs)


cdef bint gather(ModelVersion* version, InferRequest* batch, int64_t count, Scratch* scratch) noexcept nogil:
    cdef size_t index, size, inputs = version.inputs.size()
    cdef InferRequest* request
    cdef Buffer* buffer
    cdef TensorView* target
    cdef int64_t rows
    resize(scratch, inputs)
    for index in range(inputs):
        target = &scratch.inputs[index]
        target[0] = batch.inputs[index]
        if count == 1 and (<uintptr_t> target.data & 63 == 0 or target.dtype == DataType.kBytes):
            continue
        size = 0
        rows = 0
        request = batch
        while request != NULL:
            size += request.inputs[index].size
            rows += request.rows
            request = request.next
        buffer = &scratch.gathered[index]
        buffer.clear(kKeepScratchBytes)
        if not buffer.reserve(size if size else 1):
            return False
        request = batch
        while request != NULL:
            memcpy(buffer.data + buffer.size, request.inputs[index].data, request.inputs[index].size)
            buffer.size += request.inputs[index].size
            request = request.next
        target.data = buffer.data
        target.size = size
        if count > 1:
            target.shape.dims[0] = rows
    return True


cdef size_t bytes_elements(const TensorView* tensor, size_t start, int64_t elements) noexcept nogil:
    cdef uint32_t length
    while elements > 0:
        memcpy(&length, tensor.data + start, 4)
        start += 4 + length
        elements -= 1
    return start


cdef bint asked_for(const InferRequest* request, string_view name) noexcept nogil:
    cdef size_t index
    for index in range(request.outputs.size()):
        if request.outputs[index].name == name:
            return True
    return request.outputs.size() == 0


cdef void slice_outputs(InferRequest* request, int64_t first, int64_t rows, Scratch* scratch) noexcept nogil:
    """scratch.sliced: the request's rows of the outputs it asked for."""
    cdef size_t index, end
    cdef TensorView* whole
    cdef TensorView part
    cdef int64_t elements
    cdef size_t row_bytes
    cdef int axis
    scratch.sliced.clear()
    for index in range(scratch.outputs.views.size()):
        whole = &scratch.outputs.views[index]
        part = whole[0]
        if rows >= 0:
            elements = request.rows
            for axis in range(1, whole.shape.rank):
                elements *= whole.shape.dims[axis]
            if whole.dtype == DataType.kBytes:
                end = bytes_elements(whole, scratch.cursors[index], elements)
                part.data = whole.data + scratch.cursors[index]
                part.size = end - scratch.cursors[index]
                scratch.cursors[index] = end
            else:
                row_bytes = whole.size // <size_t> rows
                part.data = whole.data + <size_t> first * row_bytes
                part.size = <size_t> request.rows * row_bytes
            part.shape.dims[0] = request.rows
        if asked_for(request, part.name):
            scratch.sliced.push_back(part)


cdef void sort_as_asked(InferRequest* request, Scratch* scratch) noexcept nogil:
    """Outputs come in the order the request names them."""
    cdef size_t index, other
    cdef TensorView held
    for index in range(request.outputs.size()):
        for other in range(index, scratch.sliced.size()):
            if scratch.sliced[other].name == request.outputs[index].name and other != index:
                held = scratch.sliced[index]
                scratch.sliced[index] = scratch.sliced[other]
                scratch.sliced[other] = held


cdef void keep(InferRequest* part, Scratch* scratch) noexcept nogil:
    """Its outputs take the place of its inputs, which have been run."""
    cdef size_t index, size = 0
    cdef int64_t bytes = total_bytes(scratch.sliced.data(), scratch.sliced.size())
    if part.whole.parts_bytes.fetch_add(bytes) + bytes > part.max_response_bytes:
        set_too_large(part.status, part.whole.parts_bytes.load(), part.max_response_bytes)
        return
    if not part.response.reserve(<size_t> bytes):
        part.status.set(kResourceExhausted, b"OUT_OF_MEMORY", string(b"no memory for the answer"))
        return
    part.inputs.assign(scratch.sliced.begin(), scratch.sliced.end())
    for index in range(part.inputs.size()):
        part.response.append(part.inputs[index].data, part.inputs[index].size)
        part.inputs[index].data = part.response.data + size
        size += part.inputs[index].size


cdef void write_answer(ModelVersion* version, InferRequest* request, const TensorView* outputs, size_t count) noexcept nogil:
    cdef string_view name = string_view(version.name.data(), version.name.size())
    cdef string_view number = string_view(version.version.data(), version.version.size())
    if request.encoding == Encoding.kProto:
        pb_response.encode(request, name, number, outputs, count)
    else:
        json_codec.encode(request, name, number, outputs, count, &request.response, &request.json_size)


cdef bint scatter(ModelVersion* version, InferRequest* batch, int64_t rows, Scratch* scratch) noexcept nogil:
    cdef InferRequest* request = batch
    cdef int64_t first = 0
    cdef size_t index
    cdef bint split = batch.next != NULL
    if split:
        scratch.cursors.assign(scratch.outputs.views.size(), 0)
        for index in range(scratch.outputs.views.size()):
            if scratch.outputs.views[index].shape.rank == 0 or scratch.outputs.views[index].shape.dims[0] != rows:
                return False
    while request != NULL:
        slice_outputs(request, first, rows if split else -1, scratch)
        if request.outputs.size() > 1:
            sort_as_asked(request, scratch)
        if request.whole != NULL:
            keep(request, scratch)
        else:
            write_answer(version, request, scratch.sliced.data(), scratch.sliced.size())
        first += request.rows
        request = request.next
    return True
