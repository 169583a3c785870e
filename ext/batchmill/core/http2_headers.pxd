# Headers and trailers of answers, as libnghttp2 takes them. Each put function tells how many it has put there.
from libc.stdint cimport int32_t, uint8_t
from libcpp.string cimport string
from libcpp.string_view cimport string_view

from batchmill.core.http2_stream cimport Http2Stream
from batchmill.core.message cimport InferRequest
from batchmill.core.nghttp2 cimport nghttp2_nv
from batchmill.core.notes cimport Coding, name_of

cdef extern from "<nghttp2/nghttp2.h>" nogil:
    uint8_t NAME_STAYS "NGHTTP2_NV_FLAG_NO_COPY_NAME"
    uint8_t NO_COPY "(NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE)"
    # Of what differs from answer to answer: it would only drive out of the connection's table what comes back.
    uint8_t ONCE "(NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_INDEX)"


cdef inline nghttp2_nv pair_of(const char* name, size_t name_size, const char* value, size_t value_size, uint8_t flags) noexcept nogil:
    cdef nghttp2_nv nv
    nv.name = <uint8_t*> name
    nv.value = <uint8_t*> value
    nv.namelen = name_size
    nv.valuelen = value_size
    nv.flags = flags
    return nv


cdef inline nghttp2_nv coding_pair(const char* name, size_t size, Coding coding) noexcept nogil:
    cdef string_view value = string_view(name_of(coding))
    return pair_of(name, size, value.data(), value.size(), NO_COPY)


# The request id that the caller gave.
cdef inline size_t echo_id(Http2Stream* stream, nghttp2_nv* at) noexcept nogil:
    if stream.notes.request_id.empty():
        return 0
    at[0] = pair_of(b"x-request-id", 12, stream.notes.request_id.data(), stream.notes.request_id.size(), ONCE)
    return 1


cdef inline size_t put_remarks(const InferRequest* request, nghttp2_nv* at) noexcept nogil:
    cdef string_view name, value
    cdef int32_t index
    for index in range(request.remark_count):
        name = string_view(request.remarks[index].header)
        value = request.remarks[index].value
        at[index] = pair_of(name.data(), name.size(), value.data(), value.size(),
                            ONCE if value.data() == request.token else NAME_STAYS)
    return <size_t> request.remark_count


# timing: keeps the text until it is submitted.
cdef inline size_t put_timing(Http2Stream* stream, const InferRequest* request, string* timing, nghttp2_nv* at) noexcept nogil:
    if not stream.notes.server_timing:
        return 0
    timing[0] = request.times.server_timing()
    at[0] = pair_of(b"server-timing", 13, timing.data(), timing.size(), ONCE)
    return 1
