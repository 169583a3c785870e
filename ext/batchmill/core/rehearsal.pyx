"""What a request is checked for, gathered into and answered with, without a queue, a runtime or a server around it. For tests."""

from libc.stdint cimport int64_t, uint8_t
from libcpp.vector cimport vector

from batchmill.core.batch cimport Scratch, gather, scatter
from batchmill.core.message cimport Encoding, InferRequest, RequestedOutput
from batchmill.core.router cimport ModelVersion, new_padding
from batchmill.core.signature cimport check as check_request
from batchmill.core.status cimport Status
from batchmill.core.sub_queues cimport same_shape
from batchmill.core.tensor cimport TensorSpec, TensorView, datatype_name, datatype_of, kMaxRank


cdef string_view view(bytes text):
    return string_view(<const char*> text, len(text))


cdef int fill(TensorView* tensor, bytes name, bytes datatype, shape, bytes raw) except -1:
    cdef int axis
    if len(shape) > kMaxRank:
        raise ValueError("more than 16 dimensions")
    tensor.name, tensor.dtype = view(name), datatype_of(view(datatype))
    tensor.shape.rank = <int> len(shape)
    for axis in range(tensor.shape.rank):
        tensor.shape.dims[axis] = shape[axis]
    tensor.data, tensor.size = <const uint8_t*> <const char*> raw, len(raw)
    return 0


cdef int specify(vector[TensorSpec]* specs, given) except -1:
    cdef TensorSpec spec
    cdef TensorView tensor
    for name, datatype, shape in given:
        fill(&tensor, name, datatype, shape, b"")
        spec.name, spec.dtype, spec.shape = name, tensor.dtype, tensor.shape
        specs.push_back(spec)
    return 0


cdef class Rehearsal:
    """A version, and requests of it that borrow what they were given."""

    cdef ModelVersion version
    cdef vector[TensorSpec] inputs, outputs
    cdef vector[InferRequest*] requests

    def __cinit__(self, inputs, outputs, bint batched, padding=None):
        specify(&self.inputs, inputs)
        specify(&self.outputs, outputs)
        self.version.name, self.version.version, self.version.batched = b"m", b"1", batched
        self.version.inputs, self.version.outputs = &self.inputs, &self.outputs
        if padding is not None:
            self.version.padding.reset(new_padding(padding))

    def __dealloc__(self):
        for request in self.requests:
            del request

    cdef InferRequest* ask(self, given, asked) except NULL:
        """Raises ValueError with the refusal's text."""
        cdef InferRequest* request = new InferRequest()
        cdef TensorView tensor
        cdef RequestedOutput wish
        self.requests.push_back(request)
        for name, datatype, shape, raw in given:
            fill(&tensor, name, datatype, shape, raw)
            request.inputs.push_back(tensor)
        for name in asked:
            wish.name = view(name)
            request.outputs.push_back(wish)
        if not check_request(&self.version, request):
            raise ValueError((<bytes> request.status.message).decode())
        return request


def check(inputs, outputs, bint batched, given, asked=()) -> tuple:
    """(rows, names of the inputs in the signature's order). inputs, outputs: (name, datatype, shape); given: (name, datatype, shape, raw).

    Raises ValueError with the refusal's text.
    """
    cdef Rehearsal made = Rehearsal(inputs, outputs, batched)
    cdef InferRequest* request = made.ask(given, asked)
    cdef size_t index
    names = []
    for index in range(request.inputs.size()):
        names.append(name_of(&request.inputs[index]))
    return request.rows, names


cdef bytes name_of(const TensorView* tensor):
    return <bytes> tensor.name.data()[:tensor.name.size()]


def run_batch(inputs, outputs, padding, requests, model) -> tuple:
    """(framed gRPC answers, bytes of padding) of requests that run together. padding: as router.Version takes it.

    model: gets (datatype, shape, raw) of each input, gives (datatype, shape, raw) of each output. Raises ValueError when a request
    is refused or the run fails, LookupError when the queue would not have them share a run.
    """
    cdef Rehearsal made = Rehearsal(inputs, outputs, True, padding)
    cdef Scratch* scratch = new Scratch(0)
    cdef InferRequest* request
    cdef TensorView tensor
    cdef Status status
    cdef int64_t rows = 0
    cdef size_t index
    try:
        for given in requests:
            request = made.ask(given, ())
            request.encoding = Encoding.kProto
            if made.requests.size() > 1:
                made.requests[made.requests.size() - 2].next = request
            if not same_shape(request, made.requests[0]):
                raise LookupError("another sub-queue")
            rows += request.rows
        if not gather(&made.version, made.requests[0], made.requests.size(), scratch):
            raise MemoryError
        fed = []
        for index in range(scratch.inputs.size()):
            tensor = scratch.inputs[index]
            fed.append((datatype_name(tensor.dtype).decode(), [tensor.shape.dims[axis] for axis in range(<size_t> tensor.shape.rank)],
                        <bytes> (<const char*> tensor.data)[:tensor.size]))
        computed = model(fed)
        for index in range(made.outputs.size()):
            datatype, shape, raw = computed[index]
            fill(&tensor, b"", datatype, shape, raw)
            tensor.name = string_view(made.outputs[index].name.data(), made.outputs[index].name.size())
            scratch.outputs.views.push_back(tensor)
        if not scatter(&made.version, made.requests[0], rows, scratch, &status):
            raise ValueError((<bytes> status.message).decode())
        answers = []
        for request in made.requests:
            answers.append(<bytes> (<const char*> request.response.data)[request.response_start:request.response.size])
        return answers, scratch.padding_bytes
    finally:
        del scratch
