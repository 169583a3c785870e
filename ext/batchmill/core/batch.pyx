"""Rows of many requests into one aligned buffer an input, and the answers back out.

Gather copies; a lone request whose bytes are aligned is run where it lies. Scatter encodes each answer from its
slice of the outputs, so an answer is copied once (thrice that of a request in parts). BYTES travel raw and are cut by walking
their lengths.
Of a version that pads, requests of different lengths are filled up to the run's as they are gathered, and their answers cut to their own.
"""

from libc.stdint cimport int32_t, uint32_t, uintptr_t
from libc.string cimport memcpy
from libcpp.string cimport string
from libcpp.string_view cimport string_view

from batchmill.core cimport json_codec, pb_response
from batchmill.core.feedback_token cimport FeedbackToken, kNoPrediction, make_token, prediction_of
from batchmill.core.message cimport Encoding, kTokenChars
from batchmill.core.mirror cimport keep_answer
from batchmill.core.padding cimport Padding, cut, is_uneven, pad, run_length, size_at
from batchmill.core.router cimport drawn, kAnyOutput, kNoFeedback, kNoOutput
from batchmill.core.status cimport append_echo, kInternal, kResourceExhausted, set_too_large
from batchmill.core.tensor cimport DataType, append_shape, kKeepScratchBytes, total_bytes

cdef extern from * nogil:
    """
    #include "executor.hpp"
    static inline void batchmill_grow(std::vector<batchmill::Buffer>& buffers, size_t count) {
        if (buffers.size() < count) buffers = std::vector<batchmill::Buffer>(count);
    }
    """
    void grow "batchmill_grow"(vector[Buffer]& buffers, size_t count)


cdef bint gather(ModelVersion* version, InferRequest* batch, int64_t count, Scratch* scratch) noexcept nogil:
    cdef const Padding* padding = version.padding.get()
    cdef size_t index, size, inputs = version.inputs.size()
    cdef InferRequest* request
    cdef Buffer* buffer
    cdef TensorView* target
    cdef int64_t rows
    cdef int axis = 0
    grow(scratch.gathered, inputs)
    scratch.inputs.resize(inputs)
    if padding != NULL:
        begin_padding(padding, batch, scratch)
    for index in range(inputs):
        target = &scratch.inputs[index]
        target[0] = batch.inputs[index]
        if padding != NULL:
            axis = padding.inputs[index].axis
            if axis:
                target.shape.dims[axis] = scratch.length
            axis *= scratch.uneven
        if count == 1 and axis == 0 and (<uintptr_t> target.data & 63 == 0 or target.dtype == DataType.kBytes):
            continue
        size = 0
        rows = 0
        request = batch
        while request != NULL:
            size += size_at(request.inputs[index].size, request.length, scratch.length) if axis else request.inputs[index].size
            rows += request.rows
            request = request.next
        buffer = &scratch.gathered[index]
        buffer.clear(kKeepScratchBytes)
        if not buffer.reserve(size if size else 1):
            return False
        if axis:
            gather_padded(padding, batch, index, scratch)
        else:
            request = batch
            while request != NULL:
                memcpy(buffer.data + buffer.size, request.inputs[index].data, request.inputs[index].size)
                buffer.size += request.inputs[index].size
                request = request.next
        assert buffer.size == size
        target.data = buffer.data
        target.size = size
        if count > 1:
            target.shape.dims[0] = rows
    return True


cdef void begin_padding(const Padding* padding, const InferRequest* batch, Scratch* scratch) noexcept nogil:
    grow(scratch.cut, padding.output_axes.size())
    scratch.length = run_length(padding, batch)
    scratch.uneven = is_uneven(batch, scratch.length)
    scratch.padding_bytes = 0


cdef void gather_padded(const Padding* padding, const InferRequest* request, size_t index, Scratch* scratch) noexcept nogil:
    """Into a buffer that has room for it."""
    cdef Buffer* buffer = &scratch.gathered[index]
    cdef const TensorView* source
    cdef size_t size
    while request != NULL:
        source = &request.inputs[index]
        size = size_at(source.size, request.length, scratch.length)
        pad(buffer.data + buffer.size, source, padding.inputs[index].axis, request.length, scratch.length, padding.inputs[index].value)
        buffer.size += size
        scratch.padding_bytes += size - source.size
        request = request.next


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


cdef bint slice_outputs(ModelVersion* version, InferRequest* request, int64_t first, int64_t rows, Scratch* scratch) noexcept nogil:
    cdef size_t index, end
    cdef TensorView* whole
    cdef TensorView part
    cdef int64_t elements
    cdef size_t row_bytes
    cdef int axis
    cdef bint done = True
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
            if version.padding.get() != NULL and request.length != scratch.length:
                axis = version.padding.get().output_axes[index]
                if axis and not cut_output(&part, axis, request.length, &scratch.cut[index]):
                    done = False        # the others go on: cursors must pass this request
            scratch.sliced.push_back(part)
    return done


cdef bint cut_output(TensorView* part, int axis, int64_t length, Buffer* buffer) noexcept nogil:
    """False: no memory."""
    cdef size_t size = size_at(part.size, part.shape.dims[axis], length)
    buffer.clear(kKeepScratchBytes)
    if not buffer.reserve(size if size else 1):
        return False
    cut(buffer.data, part, axis, length)
    part.data, part.size, part.shape.dims[axis] = buffer.data, size, length
    return True


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


cdef uint32_t predicted_by(ModelVersion* version, int32_t wanted, const InferRequest* request, const TensorView* outputs,
                           size_t count) noexcept nogil:
    """Of the output that was chosen for it, or else of the first of the answer's that says one."""
    cdef uint32_t found = kNoPrediction
    cdef size_t index
    cdef string_view chosen
    if wanted == kNoOutput or (version.batched and request.rows != 1):
        return kNoPrediction
    if wanted >= 0:
        chosen = string_view(version.outputs[0][wanted].name.data(), version.outputs[0][wanted].name.size())
    for index in range(count):
        if wanted == kAnyOutput or outputs[index].name == chosen:
            found = prediction_of(&outputs[index])
            if found != kNoPrediction:
                return found
    return kNoPrediction


cdef void add_token(ModelVersion* version, InferRequest* request, const TensorView* outputs, size_t count) noexcept nogil:
    cdef FeedbackToken token
    cdef int32_t wanted = version.feedback.load()
    if wanted == kNoFeedback:
        return
    token.version, token.generation = version.number, request.generation
    token.nonce = drawn()
    token.prediction = predicted_by(version, wanted, request, outputs, count)
    make_token(string_view(version.name.data(), version.name.size()), token, request.token)
    request.remark(b"feedback_token", b"x-feedback-token", string_view(request.token, kTokenChars))


cdef void write_answer(ModelVersion* version, InferRequest* request, const TensorView* outputs, size_t count) noexcept nogil:
    cdef string_view name = string_view(version.name.data(), version.name.size())
    cdef string_view number = string_view(version.version.data(), version.version.size())
    cdef bint done
    add_token(version, request, outputs, count)
    if not request.fallback.empty():
        request.remark(b"fallback", b"x-fallback", string_view(request.fallback.data(), request.fallback.size()))
    if request.encoding == Encoding.kProto:
        done = pb_response.encode(request, name, number, outputs, count)
    else:
        done = json_codec.encode(request, name, number, outputs, count, &request.response, &request.json_size)
    if done and request.is_mirrored():
        keep_answer(request, outputs, count)


cdef bint has_rows(const OutputSet& outputs, int64_t rows, Status* status) noexcept nogil:
    cdef size_t index
    for index in range(outputs.views.size()):
        if outputs.views[index].shape.rank == 0 or outputs.views[index].shape.dims[0] != rows:
            status.set(kInternal, b"WRONG_ROWS", string(b"the model's outputs do not have the batch's rows"))
            return False
    return True


cdef bint has_length(const Padding* padding, const OutputSet& outputs, int64_t length, Status* status) noexcept nogil:
    """Whether the outputs that are to be cut have what their inputs were filled up to."""
    cdef size_t index
    cdef const TensorView* view
    for index in range(outputs.views.size()):
        view = &outputs.views[index]
        if padding.output_axes[index] and (view.shape.rank <= padding.output_axes[index]
                                           or view.shape.dims[padding.output_axes[index]] != length):
            status.set(kInternal, b"WRONG_LENGTH", string(b"output \""))
            append_echo(status.message, view.name)
            status.message.append(b"\" does not have the length of the padded inputs: its shape is ")
            append_shape(status.message, view.shape)
            return False
    return True


cdef bint begin_slices(ModelVersion* version, const InferRequest* batch, int64_t rows, Scratch* scratch, Status* status) noexcept nogil:
    if batch.next != NULL:
        scratch.cursors.assign(scratch.outputs.views.size(), 0)
        if not has_rows(scratch.outputs, rows, status):
            return False
    return (version.padding.get() == NULL or not scratch.uneven
            or has_length(version.padding.get(), scratch.outputs, scratch.length, status))


cdef bint scatter(ModelVersion* version, InferRequest* batch, int64_t rows, Scratch* scratch, Status* status) noexcept nogil:
    cdef InferRequest* request = batch
    cdef int64_t first = 0
    cdef bint done, split = batch.next != NULL
    if not begin_slices(version, batch, rows, scratch, status):
        return False
    while request != NULL:
        done = slice_outputs(version, request, first, rows if split else -1, scratch)
        if request.outputs.size() > 1:
            sort_as_asked(request, scratch)
        if not done:
            request.status.set(kResourceExhausted, b"OUT_OF_MEMORY", string(b"no memory for the answer"))
        elif request.whole != NULL:
            keep(request, scratch)
        else:
            write_answer(version, request, scratch.sliced.data(), scratch.sliced.size())
        first += request.rows
        request = request.next
    return True
