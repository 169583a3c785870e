"""The life of a stream of the HTTP/2 front end: from its first header until nothing of it is on its way any more."""

from batchmill.core.bridge cimport drop


cdef Http2Stream* new_stream(Http2Connection* connection, int32_t id) noexcept nogil:
    cdef Http2Stream* stream = connection.free_streams
    if stream != NULL:
        connection.free_streams = stream.next
        stream.reset()
    else:
        stream = new Http2Stream()
    stream.connection = connection
    stream.id = id
    stream.began_ns = connection.sink.now_ns
    stream.next = connection.streams
    if stream.next != NULL:
        stream.next.previous = stream
    connection.streams = stream
    connection.open_streams += 1
    return stream


cdef void release_if_done(Http2Stream* stream) noexcept nogil:
    cdef Http2Connection* connection = stream.connection
    if not stream.closed or stream.outstanding:
        return
    if stream.next != NULL:
        stream.next.previous = stream.previous
    if stream.previous != NULL:
        stream.previous.next = stream.next
    else:
        connection.streams = stream.next
    connection.open_streams -= 1
    stream.next = connection.free_streams
    connection.free_streams = stream


cdef void recycle(Http2Stream* stream, InferRequest* request) noexcept nogil:
    stream.connection.sink.recycle(stream.connection.sink.self, request)


cdef void drop_message(Http2Stream* stream) noexcept nogil:
    stream.message.clear()
    if stream.charged_bytes:
        stream.connection.sink.budget.give(stream.charged_bytes)
        stream.charged_bytes = 0


cdef void close_stream(Http2Stream* stream) noexcept nogil:
    cdef Http2Connection* connection = stream.connection
    cdef InferRequest* request
    if stream.closed:
        return
    stream.closed = True
    drop_message(stream)
    if stream.request != NULL:
        if stream.waiting:
            stream.request.cancelled.store(True)
        else:
            recycle(stream, stream.request)
        stream.request = NULL
    while stream.pending.size():
        request = stream.pending.front()
        stream.pending.pop_front()
        if request.done:
            recycle(stream, request)
        else:
            request.cancelled.store(True)
    if stream.cold != NULL:
        stream.cold.cancelled.store(True)
        stream.cold.reply_to.stream = NULL
        connection.outstanding -= 1
        if stream.ended:
            drop(stream.cold)
        else:
            connection.sink.cold_cancel(connection.sink.self, stream.cold)
        stream.cold = NULL
    release_if_done(stream)
