"""Models in ONNX Runtime: loads them, runs them, and turns what they give into raw form. All of it without the GIL."""

from libc.stdint cimport int64_t, uint32_t, uintptr_t
from libc.string cimport memcpy, memmove
from libcpp cimport bool as cpp_bool
from libcpp.string cimport string
from libcpp.string_view cimport string_view
from libcpp.vector cimport vector

from batchmill.core.ort_api cimport (
    Api, OrtSessionOptions, OrtStatus, OrtTensorTypeAndShapeInfo, OrtTypeInfo, OrtValue,
)
from batchmill.core.ort_library cimport configure, refuse, refuse_run, runtime
from batchmill.core.status cimport append_echo, kFailedPrecondition, kInternal, kInvalidArgument, kResourceExhausted
from batchmill.core.tensor cimport append_shape, count_bytes_elements, DataType, element_bytes, element_count, kMaxRank, TensorSpec

cdef extern from "ort.hpp" namespace "batchmill" nogil:
    const int* kToOnnx                      # [DataType]
    const DataType* kFromOnnx               # [ONNXTensorElementDataType], up to ONNX_BFLOAT16
    const char** kUnservedTypes             # [ONNXTensorElementDataType - 14], 25 the last; kUnknownType for any other
    size_t kUnknownType
    const char** kOnnxKinds                 # [ONNXType]
    uint8_t* kNoElements                    # what a tensor without elements points to; never written

cdef extern from "trap.hpp" namespace "batchmill" nogil:
    cdef cppclass TrapState:
        cpp_bool running, loading, trapped
    TrapState& trap_state()
    void catch_division_traps "batchmill::catch_traps"(const void* inside)

cdef enum:
    KIND_TENSOR = 1             # ONNXType
    ONNX_BFLOAT16 = 16          # ONNXTensorElementDataType
    ALIGNMENT = 64              # bytes; what the runtime's kernels want of inputs

cdef const Api* api = &runtime().api


cdef void catch_traps() noexcept nogil:
    catch_division_traps(<const void*> api.Run)


# --- loading ---

cdef bint read_tensor_type(const OrtTensorTypeAndShapeInfo* info, TensorSpec* spec, vector[string]* dims,
                           string* complaint) noexcept nogil:
    """Reads datatype and shape. False: complaint says what cannot be served (or, when empty, the runtime failed)."""
    cdef int number = 0
    cdef size_t rank = 0
    cdef const char* names[16]
    cdef size_t axis
    cdef OrtStatus* error = api.GetTensorElementType(info, &number)
    if error == NULL:
        error = api.GetDimensionsCount(info, &rank)
    if error == NULL and rank <= <size_t> kMaxRank:
        error = api.GetDimensions(info, spec.shape.dims, rank)
        if error == NULL:
            error = api.GetSymbolicDimensions(info, names, rank)
    if error != NULL:
        api.ReleaseStatus(error)
        return False
    if 0 < number <= ONNX_BFLOAT16:
        spec.dtype = kFromOnnx[number]
    if spec.dtype == DataType.kInvalid:
        complaint.append(b"has elements of type ")
        complaint.append(kUnservedTypes[number - 14 if 14 <= number <= 25 else kUnknownType])
        complaint.append(b", for which the v2 protocol has no datatype")
        return False
    if rank > <size_t> kMaxRank:
        complaint.append(b"has more than 16 axes")
        return False
    spec.shape.rank = <int32_t> rank
    for axis in range(rank):
        if spec.shape.dims[axis] < 0:
            spec.shape.dims[axis] = -1
        dims.push_back(string(names[axis]))
    # Before ONNX Runtime 1.24 a tensor without a shape looks like a scalar.
    spec.ranked = api.TensorTypeAndShape_HasShape == NULL or api.TensorTypeAndShape_HasShape(info) != 0
    return True


cdef bint read_spec(OrtModel* model, bint is_input, size_t index, Status* status) noexcept nogil:
    """Appends one input's or output's name, datatype and shape to the model; refuses what is no plain tensor."""
    cdef char* name = NULL
    cdef OrtTypeInfo* type_info = NULL
    cdef const OrtTensorTypeAndShapeInfo* info = NULL
    cdef TensorSpec spec
    cdef vector[string] dims
    cdef string complaint
    cdef int kind = 0
    cdef OrtStatus* error
    if is_input:
        error = api.SessionGetInputName(model.session, index, runtime().allocator, &name)
        if error == NULL:
            error = api.SessionGetInputTypeInfo(model.session, index, &type_info)
    else:
        error = api.SessionGetOutputName(model.session, index, runtime().allocator, &name)
        if error == NULL:
            error = api.SessionGetOutputTypeInfo(model.session, index, &type_info)
    if name != NULL:
        spec.name = string(name)
        refuse(api.AllocatorFree(runtime().allocator, name), status, kInternal, b"RUNTIME_ERROR", b"")
    if error == NULL:
        error = api.GetOnnxTypeFromTypeInfo(type_info, &kind)
    if error == NULL and kind == KIND_TENSOR:
        error = api.CastTypeInfoToTensorInfo(type_info, &info)
    if not refuse(error, status, kInternal, b"RUNTIME_ERROR", b"a model's signature cannot be read: "):
        api.ReleaseTypeInfo(type_info)
        return False
    cdef bint fits = kind == KIND_TENSOR and read_tensor_type(info, &spec, &dims, &complaint)
    api.ReleaseTypeInfo(type_info)
    if not fits:
        if kind != KIND_TENSOR:
            complaint = string(b"is ")
            complaint.append(kOnnxKinds[kind] if 0 <= kind <= 6 else kOnnxKinds[0])
            complaint.append(b"; only tensors can be served")
        elif complaint.empty():
            complaint = string(b"has a type that the runtime does not tell")
        status.set(kFailedPrecondition, b"MODEL_NOT_SERVABLE", string(b"input \"") if is_input else string(b"output \""))
        append_echo(status.message, string_view(spec.name.data(), spec.name.size()))
        status.message.append(b"\" ").append(complaint)
        return False
    if is_input:
        model.inputs.push_back(spec)
        model.input_dims.push_back(dims)
    else:
        model.outputs.push_back(spec)
        model.output_dims.push_back(dims)
    return True


cdef OrtModel* open_model(const char* path, const uint8_t* content, size_t size, const LoadOptions& options,
                          Status* status) noexcept nogil:
    """Loads from path, or from content when path is null."""
    cdef OrtSessionOptions* session_options = NULL
    cdef OrtModel* model
    cdef OrtStatus* error
    cdef size_t inputs = 0, outputs = 0, index
    status.clear()
    if runtime().allocator == NULL:
        status.set(kFailedPrecondition, b"NOT_INITIALISED", string(b"initialise() has not opened ONNX Runtime"))
        return NULL
    model = new OrtModel()
    error = api.CreateSessionOptions(&session_options)
    if error == NULL:
        error = configure(session_options, options)
    if error == NULL:
        trap_state().loading = True
        if path != NULL:
            error = api.CreateSession(runtime().env, path, session_options, &model.session)
        else:
            error = api.CreateSessionFromArray(runtime().env, content, size, session_options, &model.session)
        trap_state().loading = False
    api.ReleaseSessionOptions(session_options)
    if error == NULL:
        error = api.SessionGetInputCount(model.session, &inputs)
    if error == NULL:
        error = api.SessionGetOutputCount(model.session, &outputs)
    cdef bint loaded = refuse(error, status, kFailedPrecondition, b"MODEL_LOAD_FAILED", b"ONNX Runtime cannot load the model: ")
    for index in range(inputs):
        loaded = loaded and read_spec(model, True, index, status)
    for index in range(outputs):
        loaded = loaded and read_spec(model, False, index, status)
    if not loaded:
        destroy(model)
        return NULL
    return model


cdef OrtModel* load(const char* path, const LoadOptions& options, Status* status) noexcept nogil:
    return open_model(path, NULL, 0, options, status)


cdef OrtModel* load_bytes(const uint8_t* content, size_t size, const LoadOptions& options, Status* status) noexcept nogil:
    return open_model(NULL, content, size, options, status)


cdef void destroy(OrtModel* model) noexcept nogil:
    if model != NULL:
        if model.session != NULL:
            api.ReleaseSession(model.session)
        del model


# --- running ---

cdef inline bint is_aligned(const uint8_t* data) noexcept nogil:
    return (<uintptr_t> data) & (ALIGNMENT - 1) == 0


cdef OrtStatus* make_strings(const TensorView* view, OrtValue** value) noexcept nogil:
    """A string tensor of the raw form's elements, whose lengths have been checked."""
    cdef int element_type = kToOnnx[<int> DataType.kBytes]
    cdef OrtStatus* error = api.CreateTensorAsOrtValue(runtime().allocator, view.shape.dims, view.shape.rank, element_type, value)
    cdef size_t at = 0, index = 0
    cdef uint32_t length = 0
    cdef char* room = NULL
    while error == NULL and at < view.size:
        memcpy(&length, view.data + at, 4)
        # The calls that take C strings would end an element at its first NUL.
        error = api.GetResizedStringTensorElementBuffer(value[0], index, length, &room)
        if error == NULL and length:
            memcpy(room, view.data + at + 4, length)
        at += 4 + <size_t> length
        index += 1
    return error


cdef bint give_inputs(const OrtModel* model, const TensorView* inputs, const int32_t* input_index, size_t input_count,
                      OutputSet* outputs, Status* status) noexcept nogil:
    """Makes outputs.given. All that needs room in outputs.aligned reserves it first: the copies must not move."""
    cdef size_t index, room = 0
    cdef const TensorView* view
    cdef const TensorSpec* spec
    cdef uint8_t* data
    cdef OrtStatus* error
    outputs.given.resize(input_count)
    outputs.input_names.resize(input_count)
    for index in range(input_count):
        outputs.given[index] = NULL
        if not is_aligned(inputs[index].data):
            room += (inputs[index].size + ALIGNMENT - 1) & ~<size_t> (ALIGNMENT - 1)
    if room and not outputs.aligned.reserve(room):
        status.set(kResourceExhausted, b"RUN_OUT_OF_MEMORY", string(b"no memory to align the inputs"))
        return False
    for index in range(input_count):
        view = inputs + index
        assert 0 <= input_index[index] < <int32_t> model.inputs.size()
        spec = &model.inputs[input_index[index]]
        outputs.input_names[index] = spec.name.c_str()
        if spec.dtype == DataType.kBytes:
            if count_bytes_elements(view.data, view.size) != element_count(view.shape):
                status.set(kInvalidArgument, b"BAD_TENSOR", string(b"input \""))
                append_echo(status.message, string_view(spec.name.data(), spec.name.size()))
                status.message.append(b"\": its BYTES elements do not fill shape ")
                append_shape(status.message, view.shape)
                return False
            error = make_strings(view, &outputs.given[index])
        else:
            data = <uint8_t*> view.data
            if view.size == 0:
                data = kNoElements  # the runtime refuses null
            elif not is_aligned(data):
                data = outputs.aligned.data + outputs.aligned.size
                memcpy(data, view.data, view.size)
                outputs.aligned.size += (view.size + ALIGNMENT - 1) & ~<size_t> (ALIGNMENT - 1)
            error = api.CreateTensorWithDataAsOrtValue(runtime().cpu_memory, data, view.size, view.shape.dims, view.shape.rank,
                                                       kToOnnx[<int> spec.dtype], &outputs.given[index])
        if error != NULL:
            refuse_run(error, status)
            return False
    return True


cdef OrtStatus* read_shape(const OrtValue* value, TensorView* view) noexcept nogil:
    """Datatype and shape of an output; its shape is never guessed from the model's, which need not be true."""
    cdef OrtTensorTypeAndShapeInfo* info = NULL
    cdef OrtStatus* error
    cdef const int64_t* dims = NULL
    cdef size_t rank = 0
    cdef int number = 0
    if api.GetTensorElementTypeAndShapeDataReference != NULL:
        error = api.GetTensorElementTypeAndShapeDataReference(value, &number, &dims, &rank)
        if error == NULL and rank and rank <= <size_t> kMaxRank:
            memcpy(view.shape.dims, dims, rank * sizeof(int64_t))
    else:
        error = api.GetTensorTypeAndShape(value, &info)
        if error == NULL:
            error = api.GetTensorElementType(info, &number)
            if error == NULL:
                error = api.GetDimensionsCount(info, &rank)
            if error == NULL and rank <= <size_t> kMaxRank:
                error = api.GetDimensions(info, view.shape.dims, rank)
            api.ReleaseTensorTypeAndShapeInfo(info)
    view.dtype = kFromOnnx[number] if 0 < number <= ONNX_BFLOAT16 and rank <= <size_t> kMaxRank else DataType.kInvalid
    view.shape.rank = <int32_t> rank
    return error


cdef OrtStatus* take_strings(const OrtValue* value, TensorView* view, size_t count, OutputSet* outputs) noexcept nogil:
    """Appends a string tensor to outputs.bytes in raw form; view.data becomes its offset there. Null data: no memory."""
    cdef size_t total = 0
    cdef size_t start = outputs.bytes.size
    cdef size_t index, length
    cdef uint32_t prefix
    cdef uint8_t* room
    cdef uint8_t* source
    cdef OrtStatus* error = api.GetStringTensorDataLength(value, &total)
    if error != NULL:
        return error
    view.size = total + 4 * count
    room = outputs.bytes.extend(view.size)
    if room == NULL and view.size:
        view.dtype = DataType.kInvalid
        return NULL
    view.data = <const uint8_t*> <uintptr_t> start
    outputs.offsets.resize(count + 1)
    # The runtime writes the bytes to the end of the room; then each element moves down behind its length, which never overtakes them.
    error = api.GetStringTensorContent(value, room + 4 * count, total, outputs.offsets.data(), count)
    if error != NULL:
        return error
    outputs.offsets[count] = total
    for index in range(count):
        length = outputs.offsets[index + 1] - outputs.offsets[index]
        source = room + 4 * count + outputs.offsets[index]
        prefix = <uint32_t> length
        memcpy(room + 4 * index + outputs.offsets[index], &prefix, 4)
        memmove(room + 4 * index + outputs.offsets[index] + 4, source, length)
    return NULL


cdef bint take_outputs(const OrtModel* model, const int32_t* output_index, OutputSet* outputs, Status* status) noexcept nogil:
    """Makes outputs.views of outputs.values."""
    cdef size_t index
    cdef TensorView* view
    cdef OrtStatus* error
    cdef int64_t count
    cdef void* data
    cdef const TensorSpec* spec
    outputs.views.resize(outputs.values.size())
    for index in range(outputs.values.size()):
        view = &outputs.views[index]
        spec = &model.outputs[output_index[index]]
        view.name = string_view(spec.name.data(), spec.name.size())
        assert outputs.values[index] != NULL  # only optional outputs may be, and load() refuses those
        error = read_shape(outputs.values[index], view)
        count = element_count(view.shape) if error == NULL and view.dtype != DataType.kInvalid else 0
        if error == NULL and view.dtype == DataType.kBytes:
            view.size = 0
            if count:
                error = take_strings(outputs.values[index], view, count, outputs)
        elif error == NULL:
            data = kNoElements
            view.size = count * element_bytes(view.dtype)
            if count:
                error = api.GetTensorMutableData(outputs.values[index], &data)
            view.data = <const uint8_t*> data
        if error != NULL or view.dtype == DataType.kInvalid:
            if error != NULL:
                refuse_run(error, status)
            else:
                status.set(kInternal, b"RUNTIME_ERROR", string(b"an output cannot be read: "))
                append_echo(status.message, view.name)
            return False
    for index in range(outputs.views.size()):  # only now, because outputs.bytes moved while it grew
        view = &outputs.views[index]
        if view.dtype == DataType.kBytes:
            view.data = outputs.bytes.data + <uintptr_t> view.data if view.size else kNoElements
    return True


cdef bint run(const OrtModel* model, const TensorView* inputs, const int32_t* input_index, size_t input_count,
              const int32_t* output_index, size_t output_count, OutputSet* outputs, Status* status,
              const OrtRunOptions* run_options) noexcept nogil:
    cdef size_t index
    cdef OrtStatus* error
    cdef bint done = False
    outputs.release = api.ReleaseValue
    outputs.clear()
    if give_inputs(model, inputs, input_index, input_count, outputs, status):
        outputs.values.resize(output_count)
        outputs.output_names.resize(output_count)
        for index in range(output_count):
            assert 0 <= output_index[index] < <int32_t> model.outputs.size()
            outputs.values[index] = NULL
            outputs.output_names[index] = model.outputs[output_index[index]].name.c_str()
        trap_state().running = True
        trap_state().trapped = False
        error = api.Run(model.session, run_options, outputs.input_names.data(), <const OrtValue* const*> outputs.given.data(),
                        input_count, outputs.output_names.data(), output_count, outputs.values.data())
        trap_state().running = False
        if error != NULL:
            refuse_run(error, status)
        elif trap_state().trapped:
            status.set(kInvalidArgument, b"RUN_FAILED",
                       string(b"the model cannot run this input: it divides an integer by zero, or the lowest one by -1"))
        else:
            done = take_outputs(model, output_index, outputs, status)
    outputs.drop_given()
    if not done:
        outputs.clear()
    return done
