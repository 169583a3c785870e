"""One socket of an I/O thread and the front end behind it: read, sniff, hand over, write, close."""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcmp, memcpy
from libcpp.string_view cimport string_view

from batchmill.core cimport http1, http2
from batchmill.core.clock cimport now_ns
from batchmill.core.http1 cimport Http1Connection
from batchmill.core.http2_stream cimport Http2Connection
from batchmill.core.intake cimport Ages, Transport
from batchmill.core.tensor cimport Buffer

cdef extern from * nogil:
    """
    #include "io_thread.hpp"
    #include <sys/ioctl.h>
    """
    int MSG_NOSIGNAL, SHUT_WR
    unsigned long FIONREAD
    int ioctl(int fd, unsigned long request, int* value)
    Py_ssize_t recv(int fd, void* buffer, size_t size, int flags)
    Py_ssize_t send(int fd, const void* buffer, size_t size, int flags)
    int close(int fd)
    int shutdown(int fd, int how)

cdef enum:
    READ_BYTES = 256 << 10          # size of the thread's buffer
    FLOOD_BYTES = 16 << 10          # some dozens of small requests
    SLICE_BYTES = 4 << 10           # of them have about the same age
    WRITE_BYTES = 256 << 10         # to one socket before the others have their turn

cdef int64_t LINGER_NS = 10 * 1000000000        # as long as a head may take by default
cdef int64_t LINGER_BYTES = 1 << 30
cdef const char* PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


cdef void see_to(IoThread* thread, Socket* socket) noexcept nogil:
    """At the end of the turn: flush()."""
    if not socket.dirty:
        socket.dirty = True
        socket.next_dirty = thread.dirty
        thread.dirty = socket


cdef void mark_dirty(IoThread* thread, Socket* socket) noexcept nogil:
    if not socket.gone:
        see_to(thread, socket)


cdef void forget(IoThread* thread, Socket* socket) noexcept nogil:
    """Frees a socket whose front end has been freed."""
    if socket.next != NULL:
        socket.next.previous = socket.previous
    if socket.previous != NULL:
        socket.previous.next = socket.next
    else:
        thread.sockets = socket.next
    del socket


cdef void close_socket(IoThread* thread, Socket* socket) noexcept nogil:
    """Closes the descriptor now; the socket itself lives until its last request has come back, and the turn has ended."""
    cdef bint freed = True
    if socket.gone:
        return
    socket.gone = True
    # A process that is being started may have it open still, and then a close alone would not end its events.
    watch(thread.epoll_fd, EPOLL_CTL_DEL, socket.fd, 0, NULL)
    close(socket.fd)
    thread.shared.connections.fetch_sub(1)
    thread.current = socket
    if socket.transport == Transport.kHttp2:
        freed = http2.abandon(<Http2Connection*> socket.front)
    elif socket.transport == Transport.kHttp1:
        freed = http1.abandon(<Http1Connection*> socket.front)
    if freed:
        socket.front = NULL
        see_to(thread, socket)      # who called may look at it still


cdef void arm(IoThread* thread, Socket* socket) noexcept nogil:
    cdef uint32_t events = 0
    if socket.reading and not socket.paused:
        events |= EPOLLIN | EPOLLRDHUP
    if socket.waits_to_write:
        events |= EPOLLOUT
    watch(thread.epoll_fd, EPOLL_CTL_MOD, socket.fd, events, socket)


# Reading.
cdef bint open_front(IoThread* thread, Socket* socket) noexcept nogil:
    """Decides the transport by the first bytes. False: not yet."""
    if memcmp(socket.sniffed, PREFACE, socket.sniffed_size):
        socket.transport = Transport.kHttp1
        socket.front = http1.open_connection(&thread.sink, string_view(socket.peer), socket.metrics_only)
    elif socket.sniffed_size == 24:
        socket.transport = Transport.kHttp2
        socket.front = http2.open_connection(&thread.sink, string_view(socket.peer), socket.metrics_only)
        if thread.drain_seen:
            http2.drain(<Http2Connection*> socket.front, thread.drain_seen > 1)
    else:
        return False
    return True


cdef bint feed_front(IoThread* thread, Socket* socket, const uint8_t* data, size_t size) noexcept nogil:
    thread.current = socket
    if socket.transport == Transport.kHttp2:
        return http2.feed(<Http2Connection*> socket.front, data, size)
    return http1.feed(<Http1Connection*> socket.front, data, size)


cdef bint take_bytes(IoThread* thread, Socket* socket, const uint8_t* data, size_t size) noexcept nogil:
    """False: nothing more is to be read."""
    cdef size_t part
    if socket.transport == Transport.kUnknown:
        part = 24 - socket.sniffed_size
        if part > size:
            part = size
        memcpy(socket.sniffed + socket.sniffed_size, data, part)
        socket.sniffed_size += <int> part
        if not open_front(thread, socket):
            return True
        if not feed_front(thread, socket, socket.sniffed, socket.sniffed_size):
            return False
        data += part
        size -= part
        if not size:
            return True
    return feed_front(thread, socket, data, size)


cdef bint take_by_age(IoThread* thread, Socket* socket, int64_t got) noexcept nogil:
    """What was read late, in slices: the last of it has come later than the first. False: nothing more is to be read."""
    cdef int waiting = 0
    cdef int64_t at = 0, part, size = SLICE_BYTES if socket.transport == Transport.kHttp2 else got
    cdef double between         # two bytes
    cdef Ages ages
    if got == FLOOD_BYTES and ioctl(socket.fd, FIONREAD, &waiting):
        waiting = 0
    thread.keeps_up = waiting == 0
    thread.sink.now_ns = now_ns()
    ages = socket.backlog.ages(got, waiting, thread.sink.now_ns, thread.round)
    between = <double> (ages.first_ns - ages.last_ns) / <double> got
    while at < got and not socket.gone:
        part = min(size, got - at)
        thread.sink.behind_ns = ages.first_ns - <int64_t> (between * <double> (at + part // 2))
        if not take_bytes(thread, socket, thread.buffer + at, part):
            return False
        at += part
    return True


cdef bint take(IoThread* thread, Socket* socket, int64_t got) noexcept nogil:
    """False: nothing more is to be read."""
    if thread.flooded:
        return take_by_age(thread, socket, got)
    thread.sink.behind_ns = thread.collecting.rested_ns
    return take_bytes(thread, socket, thread.buffer, got)


cdef void on_readable(IoThread* thread, Socket* socket) noexcept nogil:
    cdef Py_ssize_t got
    if not socket.reading or socket.paused:
        return
    got = recv(socket.fd, thread.buffer, FLOOD_BYTES if thread.flooded else READ_BYTES, 0)
    if got < READ_BYTES and not thread.flooded:
        socket.backlog.drained_ns = thread.sink.now_ns
    if got < 0:
        if errno != EAGAIN and errno != EINTR:
            close_socket(thread, socket)
        return
    if socket.linger_until_ns:
        socket.linger_left -= got
        if got == 0 or socket.linger_left < 0:
            close_socket(thread, socket)
        return
    if got == 0:
        on_end(thread, socket)
        return
    if not take(thread, socket, got):
        socket.reading = False
        arm(thread, socket)
    elif socket.transport == Transport.kHttp1 and http1.paused(<Http1Connection*> socket.front):
        socket.paused = True
        arm(thread, socket)
    if socket.transport != Transport.kUnknown:
        mark_dirty(thread, socket)


cdef void on_end(IoThread* thread, Socket* socket) noexcept nogil:
    """The peer sends no more. An HTTP/1.1 client that has only half closed still gets its answers."""
    if socket.transport == Transport.kHttp1 and http1.end_input(<Http1Connection*> socket.front):
        socket.reading = False
        arm(thread, socket)
        mark_dirty(thread, socket)
        return
    close_socket(thread, socket)


# Writing.
cdef bint next_output(Socket* socket, const uint8_t** data, size_t* size) noexcept nogil:
    """What is to be sent next; False: the connection is broken."""
    cdef Http2Connection* two
    cdef Http1Connection* one
    cdef Buffer* out
    cdef size_t start
    if socket.transport == Transport.kHttp2:
        two = <Http2Connection*> socket.front
        if not http2.produce(two):
            return False
        data[0] = two.out.data + two.out_sent
        size[0] = two.out.size - two.out_sent
        return True
    one = <Http1Connection*> socket.front
    out = http1.output(one, &start)
    data[0] = out.data + start
    size[0] = out.size - start
    return True


cdef void write_socket(IoThread* thread, Socket* socket) noexcept nogil:
    cdef const uint8_t* data
    cdef size_t size
    cdef size_t left = WRITE_BYTES
    cdef Py_ssize_t sent
    cdef bint blocked = False
    while not blocked:
        if not next_output(socket, &data, &size):
            close_socket(thread, socket)
            return
        if not size:
            break
        sent = send(socket.fd, data, size if size < left else left, MSG_NOSIGNAL)
        if sent < 0:
            if errno == EINTR:
                continue
            if errno != EAGAIN:
                close_socket(thread, socket)
                return
            sent = 0
        left -= sent
        blocked = <size_t> sent < size or not left
        if socket.transport == Transport.kHttp2:
            (<Http2Connection*> socket.front).out_sent += sent
        else:
            http1.wrote(<Http1Connection*> socket.front, sent)
    settle(thread, socket, blocked)


cdef void linger(IoThread* thread, Socket* socket) noexcept nogil:
    """All is said, but bytes that arrive after a close make the kernel reset the connection, and the peer loses the answer."""
    if socket.linger_until_ns:
        return
    shutdown(socket.fd, SHUT_WR)
    socket.linger_until_ns = thread.sink.now_ns + LINGER_NS
    socket.linger_left = LINGER_BYTES
    socket.reading = True
    socket.paused = socket.waits_to_write = False
    arm(thread, socket)


cdef void settle(IoThread* thread, Socket* socket, bint blocked) noexcept nogil:
    """After a write: close when all is said, else watch for what comes next."""
    cdef bint changed = blocked != socket.waits_to_write
    cdef bint over
    if socket.transport == Transport.kHttp2:
        over = http2.finished(<Http2Connection*> socket.front) or (not socket.reading and not blocked)
    else:
        over = http1.finished(<Http1Connection*> socket.front)
    if over:
        if socket.transport == Transport.kHttp2 or http1.lingers(<Http1Connection*> socket.front):
            linger(thread, socket)
        else:
            close_socket(thread, socket)
        return
    socket.waits_to_write = blocked
    if socket.paused and not http1.paused(<Http1Connection*> socket.front):
        socket.paused = False
        changed = True
    if changed:
        arm(thread, socket)
