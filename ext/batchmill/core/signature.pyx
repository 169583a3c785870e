"""Holds a request against the signature of its version: names, datatypes, shapes, sizes, and the outputs it asks for.

All that is wrong with one request is found here, before it may join a batch with others.
"""

from libc.stdint cimport int64_t, uint8_t
from libcpp.string cimport string
from libcpp.string_view cimport string_view

from batchmill.core.message cimport InferRequest
from batchmill.core.padding cimport Padding
from batchmill.core.router cimport ModelVersion
from batchmill.core.status cimport append_echo, kInvalidArgument
from batchmill.core.tensor cimport (
    DataType, TensorSpec, TensorView, append_shape, count_bytes_elements, datatype_name, element_bytes, element_count,
)

cdef extern from * nogil:
    """
    #include "router.hpp"
    #include <algorithm>
    static inline void batchmill_swap(batchmill::TensorView& a, batchmill::TensorView& b) { std::swap(a, b); }
    """
    void swap_views "batchmill_swap"(TensorView& a, TensorView& b)
    string to_string "std::to_string"(int64_t)


cdef void name_input(string& text, ModelVersion* version, string_view input) noexcept nogil:
    text.append(b"input \"")
    append_echo(text, input)
    text.append(b"\" of ")
    text.append(version.name)
    text.append(b"/")
    text.append(version.version)
    text.append(b": ")


cdef bint refuse(InferRequest* request, string text) noexcept nogil:
    request.status.set(kInvalidArgument, b"INVALID_REQUEST", text)
    return False


cdef bint settle_raw(ModelVersion* version, InferRequest* request) noexcept nogil:
    """A raw request (no JSON at all): one input, its only free axis follows from the bytes, one row when batched."""
    cdef TensorView* tensor = &request.inputs[0]
    cdef const TensorSpec* spec
    cdef int axis, free_axis = -1
    cdef int64_t known = 1
    cdef size_t width
    if version.inputs.size() != 1:
        return refuse(request, string(b"a raw request needs a model with exactly one input"))
    spec = &version.inputs[0][0]
    tensor.name = string_view(spec.name.data(), spec.name.size())
    tensor.dtype = spec.dtype
    tensor.shape = spec.shape
    width = element_bytes(spec.dtype)
    for axis in range(spec.shape.rank):
        if axis == 0 and version.batched:
            tensor.shape.dims[0] = 1
        elif spec.shape.dims[axis] < 0:
            if free_axis >= 0:
                return refuse(request, string(b"a raw request needs a model with at most one free dimension"))
            free_axis = axis
        elif spec.shape.dims[axis] > 0:
            known *= spec.shape.dims[axis]
    if free_axis >= 0:
        if width == 0:
            tensor.shape.dims[free_axis] = 1
        else:
            tensor.shape.dims[free_axis] = <int64_t> tensor.size // (known * <int64_t> width)
    return True


cdef bint check_tensor(ModelVersion* version, InferRequest* request, TensorView* tensor, const TensorSpec* spec) noexcept nogil:
    cdef string text
    cdef int axis
    cdef int64_t count
    cdef bint fits = tensor.shape.rank == spec.shape.rank or not spec.ranked
    if tensor.dtype != spec.dtype:
        name_input(text, version, tensor.name)
        text.append(b"datatype ").append(datatype_name(tensor.dtype)).append(b" given, ")
        text.append(datatype_name(spec.dtype)).append(b" wanted")
        return refuse(request, text)
    if fits:
        for axis in range(spec.shape.rank):
            if tensor.shape.dims[axis] < 0 or (spec.shape.dims[axis] >= 0 and spec.shape.dims[axis] != tensor.shape.dims[axis]):
                fits = False
    if not fits:
        name_input(text, version, tensor.name)
        text.append(b"shape ")
        append_shape(text, tensor.shape)
        text.append(b" given, ")
        append_shape(text, spec.shape)
        text.append(b" wanted")
        return refuse(request, text)
    count = element_count(tensor.shape)
    if tensor.dtype == DataType.kBytes:
        fits = count >= 0 and count_bytes_elements(tensor.data, tensor.size) == count
    else:
        fits = count >= 0 and <size_t> count <= tensor.size and <size_t> count * element_bytes(tensor.dtype) == tensor.size
    if not fits:
        name_input(text, version, tensor.name)
        text.append(to_string(<int64_t> tensor.size)).append(b" bytes do not fit shape ")
        append_shape(text, tensor.shape)
        return refuse(request, text)
    if tensor.dtype == DataType.kBool:
        settle_bools(<uint8_t*> tensor.data, tensor.size)
    return True


cdef void settle_bools(uint8_t* data, size_t size) noexcept nogil:
    """Bytes of the request's own body that are not 0 become 1, as in typed contents. Kernels count with them: of any other Compress
    tells more elements than it writes, and what lay there before is answered.
    """
    cdef uint8_t seen = 0
    cdef size_t index
    for index in range(size):
        seen |= data[index]
    if seen > 1:
        for index in range(size):
            data[index] = data[index] != 0


cdef bint check(ModelVersion* version, InferRequest* request) noexcept nogil:
    cdef size_t index, other
    cdef const TensorSpec* spec
    cdef string text
    cdef string_view name
    if request.raw_binary and not settle_raw(version, request):
        return False
    for index in range(version.inputs.size()):
        spec = &version.inputs[0][index]
        name = string_view(spec.name.data(), spec.name.size())
        other = index
        while other < request.inputs.size() and request.inputs[other].name != name:
            other += 1
        if other >= request.inputs.size():
            name_input(text, version, name)
            text.append(b"missing")
            if index < request.inputs.size():
                text.append(b"; \"")
                append_echo(text, request.inputs[index].name)
                text.append(b"\" was given")
            return refuse(request, text)
        if other != index:
            swap_views(request.inputs[index], request.inputs[other])
        if not check_tensor(version, request, &request.inputs[index], spec):
            return False
    if request.inputs.size() > version.inputs.size():
        name_input(text, version, request.inputs[version.inputs.size()].name)
        text.append(b"no such input, or given twice")
        return refuse(request, text)
    if not check_outputs(version, request):
        return False
    request.rows = 1
    if version.batched:
        request.rows = request.inputs[0].shape.dims[0]
        for index in range(1, request.inputs.size()):
            if request.inputs[index].shape.dims[0] != request.rows:
                name_input(text, version, request.inputs[index].name)
                text.append(b"its first dimension differs from that of the other inputs")
                return refuse(request, text)
    return version.padding.get() == NULL or settle_length(version, version.padding.get(), request)


cdef bint settle_length(ModelVersion* version, const Padding* padding, InferRequest* request) noexcept nogil:
    """Sets the request's length, and the padded axes of its shapes to its bucket, so that queue and predictor take rows of one bucket for
    equal."""
    cdef size_t index, first = version.inputs.size()
    cdef int64_t* dim
    cdef string text
    for index in range(version.inputs.size()):
        if padding.inputs[index].axis == 0:
            continue
        dim = &request.inputs[index].shape.dims[padding.inputs[index].axis]
        if first == version.inputs.size():
            first = index
            request.length = dim[0]
            request.bucket = padding.bucket_of(dim[0])
        elif dim[0] != request.length:
            name_input(text, version, request.inputs[index].name)
            text.append(b"length ").append(to_string(dim[0])).append(b" along axis ").append(to_string(padding.inputs[index].axis))
            text.append(b" given, ").append(to_string(request.length)).append(b" wanted, as of \"")
            append_echo(text, request.inputs[first].name)
            text.append(b"\"")
            return refuse(request, text)
        dim[0] = request.bucket
    return True


cdef bint check_outputs(ModelVersion* version, InferRequest* request) noexcept nogil:
    cdef size_t index, other
    cdef string text
    for index in range(request.outputs.size()):
        other = 0
        while other < version.outputs.size() and request.outputs[index].name != string_view(
                version.outputs[0][other].name.data(), version.outputs[0][other].name.size()):
            other += 1
        if other == version.outputs.size():
            text.append(b"output \"")
            append_echo(text, request.outputs[index].name)
            text.append(b"\": no such output of ").append(version.name)
            return refuse(request, text)
        for other in range(index):
            if request.outputs[other].name == request.outputs[index].name:
                text.append(b"output \"")
                append_echo(text, request.outputs[index].name)
                text.append(b"\" is asked for twice")
                return refuse(request, text)
        if request.outputs[index].classification:
            return refuse(request, string(b"the classification extension is not offered"))
    return True
