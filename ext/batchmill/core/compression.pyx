"""gzip and deflate, of requests and of answers, by zlib. What is decompressed is bounded: bombs cost the body limit and no more.

Source: RFC 1950, RFC 1952; RFC 9110, section 8.4.1; grpc/doc/compression.md.
"""

from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memset
from libcpp.string cimport string
from libcpp.string_view cimport string_view

from batchmill.core.message cimport Encoding
from batchmill.core.notes cimport coding_of, name_of
from batchmill.core.status cimport kInvalidArgument, kResourceExhausted, kUnavailable

cdef extern from "<zlib.h>" nogil:
    ctypedef struct z_stream:
        uint8_t* next_in
        unsigned int avail_in
        uint8_t* next_out
        unsigned int avail_out
    int Z_OK, Z_STREAM_END, Z_BUF_ERROR, Z_FINISH, Z_NO_FLUSH, Z_BEST_SPEED, Z_DEFAULT_STRATEGY, Z_DEFLATED, MAX_WBITS
    int inflateInit2(z_stream*, int window_bits)
    int inflate(z_stream*, int flush)
    int inflateReset(z_stream*)
    int inflateEnd(z_stream*)
    int deflateInit2(z_stream*, int level, int method, int window_bits, int memory_level, int strategy)
    int deflate(z_stream*, int flush)
    int deflateEnd(z_stream*)

cdef size_t STEP = 64 << 10             # room that is made for decompressed bytes at a time
cdef size_t RATIO_MOST = 1032           # of deflate: 258 bytes in 2 bits
cdef size_t AT_ONCE = 1 << 30           # zlib counts in 32 bits
cdef int MEMORY_LEVEL = 8               # zlib's default
cdef size_t PREFIX = 5                  # of a gRPC message: compressed or not, length


cdef inline int window_bits(Coding coding) noexcept nogil:
    return MAX_WBITS + 16 if coding == Coding.kGzip else MAX_WBITS


cdef bint damaged(Status* status, Coding coding, const char* what) noexcept nogil:
    cdef string message = string(b"the ")
    message.append(name_of(coding)).append(b" data ").append(what)
    status.set(kInvalidArgument, b"BAD_COMPRESSION", message)
    return False


cdef bint make_room(z_stream* stream, size_t size, size_t limit, MemoryBudget* budget, int64_t* charged, Buffer* out,
                    Status* status) noexcept nogil:
    """More room at the end of out; `size` compressed bytes are held beside it."""
    cdef size_t room = STEP if size > STEP // 8 else 8 * size + 64
    if out.size > limit:
        status.set(kResourceExhausted, b"BODY_TOO_LARGE", string(b"decompressed, the body is larger than the server's limit"))
        status.http_status = 413
        return False
    room = min(room, limit + 1 - out.size)      # one byte too many tells that there are too many
    if budget != NULL and not budget.cover(charged, <int64_t> (size + out.size + room)):
        status.set(kUnavailable, b"PENDING_BYTES", string(b"too many bytes of requests are held: try again"))
        return False
    # Once it is known to be no small body: the most that it can be, at once, for pages that are not written cost nothing, and copies do.
    if not out.reserve(out.size + room if out.size < STEP else min(limit + 1, RATIO_MOST * size)):
        status.set(kUnavailable, b"NO_MEMORY", string(b"no memory for the request"))
        return False
    stream.next_out = out.data + out.size
    stream.avail_out = <unsigned int> room
    return True


cdef bint inflate_all(z_stream* stream, size_t size, Coding coding, size_t limit, MemoryBudget* budget, int64_t* charged, Buffer* out,
                      Status* status) noexcept nogil:
    cdef int result = Z_OK
    while result != Z_STREAM_END or stream.avail_in:
        if result == Z_STREAM_END:
            if coding != Coding.kGzip:
                return damaged(status, coding, b"ends before the body does")
            inflateReset(stream)        # RFC 1952, section 2.2: members may follow each other
        if stream.avail_out == 0 and not make_room(stream, size, limit, budget, charged, out, status):
            return False
        result = inflate(stream, Z_NO_FLUSH)
        out.size = stream.next_out - out.data
        if result == Z_BUF_ERROR or (result == Z_OK and stream.avail_in == 0 and stream.avail_out):
            return damaged(status, coding, b"is cut short")
        if result != Z_OK and result != Z_STREAM_END:
            return damaged(status, coding, b"is damaged")
    if out.size > limit:
        stream.avail_out = 0
        return make_room(stream, size, limit, budget, charged, out, status)
    return True


cdef bint decompress(const uint8_t* data, size_t size, Coding coding, size_t limit, MemoryBudget* budget, int64_t* charged,
                     Buffer* out, Status* status) noexcept nogil:
    cdef z_stream stream
    cdef bint done
    memset(&stream, 0, sizeof(z_stream))        # z_stream() would leave the fields unset that are not declared here, zalloc among them
    out.clear()
    if size == 0:
        return damaged(status, coding, b"is cut short")
    if size > AT_ONCE or inflateInit2(&stream, window_bits(coding)) != Z_OK:
        status.set(kUnavailable, b"NO_MEMORY", string(b"no memory for the request"))
        return False
    stream.next_in = <uint8_t*> data
    stream.avail_in = <unsigned int> size
    done = inflate_all(&stream, size, coding, limit, budget, charged, out, status)
    inflateEnd(&stream)
    return done


cdef bint decompress_body(InferRequest* request, size_t limit, MemoryBudget* budget) noexcept nogil:
    cdef Buffer plain
    cdef bint done = decompress(request.body.data, request.body.size, request.coding, limit, budget, &request.charged_bytes, &plain,
                                &request.status)
    if done:
        request.body.swap(plain)
    return done


cdef size_t compress(const uint8_t* data, size_t size, Coding coding, uint8_t* target) noexcept nogil:
    """Bytes written to target, where there is room for one fewer than `size`; 0: it would not become smaller."""
    cdef z_stream stream
    cdef size_t written = 0
    memset(&stream, 0, sizeof(z_stream))
    if size > AT_ONCE or deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, window_bits(coding), MEMORY_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK:
        return 0
    stream.next_in = <uint8_t*> data
    stream.avail_in = <unsigned int> size
    stream.next_out = target
    stream.avail_out = <unsigned int> (size - 1)
    if deflate(&stream, Z_FINISH) == Z_STREAM_END:
        written = stream.next_out - target
    deflateEnd(&stream)
    return written


cdef void compress_answer(InferRequest* request) noexcept nogil:
    cdef Buffer smaller
    cdef size_t skip = PREFIX if request.encoding == Encoding.kProto else 0
    cdef const uint8_t* data = request.response.data + request.response_start + skip
    cdef size_t size = request.response.size - request.response_start - skip, written = 0
    if size and smaller.reserve(skip + size):
        written = compress(data, size, request.answer_coding, smaller.data + skip)
    if written == 0:
        request.answer_coding = Coding.kIdentity
        return
    if skip:
        smaller.data[0] = 1
        smaller.data[1], smaller.data[2] = <uint8_t> (written >> 24), <uint8_t> (written >> 16)
        smaller.data[3], smaller.data[4] = <uint8_t> (written >> 8), <uint8_t> written
    smaller.size = skip + written
    request.response.swap(smaller)
    request.response_start = 0


# What Python sees: for the calls that it answers.
def decompressed(bytes data, str coding, size_t limit) -> bytes:
    """What a compressed body holds. Raises LookupError (unknown coding), OverflowError (over limit bytes), ValueError (damaged)."""
    cdef Buffer out
    cdef Status status
    cdef bytes name = coding.encode()
    cdef Coding known = coding_of(string_view(<const char*> name, len(name)))
    cdef const uint8_t* start = <const uint8_t*> <const char*> data
    cdef size_t size = len(data)
    cdef bint done
    if known == Coding.kIdentity:
        return data
    if known == Coding.kUnknown:
        raise LookupError(coding)
    with nogil:
        done = decompress(start, size, known, limit, NULL, NULL, &out, &status)
    if not done:
        raise (OverflowError if status.code == kResourceExhausted else ValueError)((<bytes> status.message).decode())
    return (<const char*> out.data)[:out.size]
