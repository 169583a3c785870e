"""The epoll loop of one I/O thread: accept, sniff, read, hand over, deliver, write, time out.

One turn: all ready sockets are read and what they ask is queued; then what may run here runs; then the answers of this
turn, of the executors and of Python are given to the front ends; then every socket with something to say is written once.
"""

from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, EMFILE, ENFILE, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy
from libcpp.string_view cimport string_view

from batchmill.core cimport http1, http2
from batchmill.core.clock cimport now_ns
from batchmill.core.executor cimport end_overdue_runs
from batchmill.core.front cimport ColdReply
from batchmill.core.http1 cimport Http1Connection
from batchmill.core.http2_reply cimport Http2Connection, cold_reply as http2_cold_reply, reply as http2_reply
from batchmill.core.intake cimport Shared, Socket, Transport, count, run_touched, take_completions
from batchmill.core.message cimport InferRequest
from batchmill.core.bridge cimport drop
from batchmill.core.tensor cimport Buffer

cdef extern from * nogil:
    """
    #include <arpa/inet.h>
    #include <errno.h>
    #include <poll.h>
    #include <stdio.h>
    #include "io_thread.hpp"

    static int batchmill_accept(int listener, char* peer, size_t peer_size) {
        sockaddr_storage address;
        socklen_t size = sizeof address;
        int fd = accept4(listener, reinterpret_cast<sockaddr*>(&address), &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return fd;
        char host[INET6_ADDRSTRLEN] = "";
        int one = 1;
        if (address.ss_family == AF_INET) {
            auto* v4 = reinterpret_cast<sockaddr_in*>(&address);
            inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
            snprintf(peer, peer_size, "ipv4:%s:%d", host, ntohs(v4->sin_port));
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        } else if (address.ss_family == AF_INET6) {
            auto* v6 = reinterpret_cast<sockaddr_in6*>(&address);
            inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
            snprintf(peer, peer_size, "ipv6:[%s]:%d", host, ntohs(v6->sin6_port));
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        } else {
            snprintf(peer, peer_size, "unix:");
        }
        return fd;
    }
    static void batchmill_watch(int epoll_fd, int operation, int fd, uint32_t events, void* data) {
        epoll_event event{};
        event.events = events;
        event.data.ptr = data;
        epoll_ctl(epoll_fd, operation, fd, &event);
    }
    static int batchmill_wait(int epoll_fd, epoll_event* events, int count, int timeout_ms) {
        return epoll_wait(epoll_fd, events, count, timeout_ms);
    }
    """
    int accept_socket "batchmill_accept"(int listener, char* peer, size_t size)
    void watch "batchmill_watch"(int epoll_fd, int operation, int fd, uint32_t events, void* data)
    int wait_events "batchmill_wait"(int epoll_fd, epoll_event* events, int count, int timeout_ms)
    ctypedef union epoll_data_t:
        void* ptr
    ctypedef struct epoll_event:
        uint32_t events
        epoll_data_t data
    uint32_t EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP, EPOLLEXCLUSIVE
    int EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL, MSG_NOSIGNAL
    Py_ssize_t recv(int fd, void* buffer, size_t size, int flags)
    Py_ssize_t send(int fd, const void* buffer, size_t size, int flags)
    int close(int fd)
    int eventfd_read(int fd, uint64_t* value)

cdef enum:
    EVENTS = 256                    # one epoll_wait returns at most so many sockets
    READ_BYTES = 256 << 10          # size of the thread's buffer

cdef int64_t TICK_NS = 100000000    # how often timeouts are looked at
cdef const char* PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
cdef uint64_t LISTENER = 1          # tag in the low bit of a listener's event data


# Sockets.
cdef void mark_dirty(IoThread* thread, Socket* socket) noexcept nogil:
    if not socket.dirty and not socket.gone:
        socket.dirty = True
        socket.next_dirty = thread.dirty
        thread.dirty = socket


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
    """Closes the descriptor now; the socket itself lives until its last request has come back."""
    cdef bint freed = True
    if socket.gone:
        return
    socket.gone = True
    close(socket.fd)
    thread.shared.connections.fetch_sub(1)
    thread.current = socket
    if socket.transport == Transport.kHttp2:
        freed = http2.abandon(<Http2Connection*> socket.front)
    elif socket.transport == Transport.kHttp1:
        freed = http1.abandon(<Http1Connection*> socket.front)
    if freed and not socket.dirty:
        forget(thread, socket)
    elif freed:
        socket.front = NULL         # flush() forgets it


cdef void arm(IoThread* thread, Socket* socket) noexcept nogil:
    cdef uint32_t events = 0
    if socket.reading and not socket.paused:
        events |= EPOLLIN | EPOLLRDHUP
    if socket.waits_to_write:
        events |= EPOLLOUT
    watch(thread.epoll_fd, EPOLL_CTL_MOD, socket.fd, events, socket)


cdef void accept_all(IoThread* thread, int listener) noexcept nogil:
    cdef Socket* socket
    cdef char peer[64]
    cdef int fd
    while True:
        fd = accept_socket(listener, peer, sizeof(peer))
        if fd < 0:
            if errno == ECONNABORTED or errno == EINTR:
                continue
            if errno == EMFILE or errno == ENFILE:
                thread.accepting = False        # looked at again at the next tick: does not spin
                watch(thread.epoll_fd, EPOLL_CTL_DEL, listener, 0, NULL)
            return
        if thread.shared.connections.fetch_add(1) >= thread.shared.max_connections:
            thread.shared.connections.fetch_sub(1)
            thread.shared.refused_connections.fetch_add(1)
            close(fd)
            continue
        socket = new Socket()
        socket.fd = fd
        memcpy(socket.peer, peer, sizeof(peer))
        socket.opened_ns = thread.sink.now_ns
        socket.next = thread.sockets
        if socket.next != NULL:
            socket.next.previous = socket
        thread.sockets = socket
        watch(thread.epoll_fd, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLRDHUP, socket)


# Reading.
cdef bint open_front(IoThread* thread, Socket* socket) noexcept nogil:
    """Decides the transport by the first bytes. False: not yet."""
    if memcmp(socket.sniffed, PREFACE, socket.sniffed_size):
        socket.transport = Transport.kHttp1
        socket.front = http1.open_connection(&thread.sink, string_view(socket.peer))
    elif socket.sniffed_size == 24:
        socket.transport = Transport.kHttp2
        socket.front = http2.open_connection(&thread.sink, string_view(socket.peer))
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


cdef void on_readable(IoThread* thread, Socket* socket) noexcept nogil:
    cdef Py_ssize_t got
    if not socket.reading or socket.paused:
        return
    got = recv(socket.fd, thread.buffer, READ_BYTES, 0)
    if got < 0:
        if errno != EAGAIN and errno != EINTR:
            close_socket(thread, socket)
        return
    if got == 0:
        on_end(thread, socket)
        return
    if not take_bytes(thread, socket, thread.buffer, got):
        socket.reading = False
        arm(thread, socket)
    elif socket.transport == Transport.kHttp1 and http1.paused(<Http1Connection*> socket.front):
        socket.paused = True
        arm(thread, socket)
    if socket.transport != Transport.kUnknown:
        mark_dirty(thread, socket)


cdef void on_end(IoThread* thread, Socket* socket) noexcept nogil:
    """The peer sends no more. An HTTP/1.1 client that has only half closed still gets its answers."""
    if socket.transport == Transport.kHttp1 and http1.awaits_answers(<Http1Connection*> socket.front):
        socket.reading = False
        arm(thread, socket)
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
    cdef Py_ssize_t sent
    cdef bint blocked = False
    while not blocked:
        if not next_output(socket, &data, &size):
            close_socket(thread, socket)
            return
        if not size:
            break
        sent = send(socket.fd, data, size, MSG_NOSIGNAL)
        if sent < 0:
            if errno == EINTR:
                continue
            if errno != EAGAIN:
                close_socket(thread, socket)
                return
            sent = 0
        blocked = <size_t> sent < size
        if socket.transport == Transport.kHttp2:
            (<Http2Connection*> socket.front).out_sent += sent
        else:
            http1.wrote(<Http1Connection*> socket.front, sent)
    settle(thread, socket, blocked)


cdef void settle(IoThread* thread, Socket* socket, bint blocked) noexcept nogil:
    """After a write: close when all is said, else watch for what comes next."""
    cdef bint changed = blocked != socket.waits_to_write
    cdef bint over
    if socket.transport == Transport.kHttp2:
        over = http2.finished(<Http2Connection*> socket.front) or (not socket.reading and not blocked)
    else:
        over = http1.finished(<Http1Connection*> socket.front) or (
            not socket.reading and not http1.awaits_answers(<Http1Connection*> socket.front))
    if over:
        close_socket(thread, socket)
        return
    socket.waits_to_write = blocked
    if socket.paused and not http1.paused(<Http1Connection*> socket.front):
        socket.paused = False
        changed = True
    if changed:
        arm(thread, socket)


cdef void flush(IoThread* thread) noexcept nogil:
    cdef Socket* socket
    while thread.dirty != NULL:
        socket = thread.dirty
        thread.dirty = socket.next_dirty
        socket.dirty = False
        if not socket.gone:
            if not socket.waits_to_write:
                write_socket(thread, socket)
        elif socket.front == NULL or socket.transport == Transport.kUnknown:
            forget(thread, socket)


# Answers.
cdef void deliver(IoThread* thread, InferRequest* request) noexcept nogil:
    cdef InferRequest* following
    cdef Socket* socket
    cdef Http2Connection* connection
    while request != NULL:
        following = request.next
        socket = <Socket*> request.reply_to.socket
        count(thread, request)
        thread.current = socket
        if socket.transport == Transport.kHttp2:
            connection = <Http2Connection*> socket.front
            http2_reply(connection, request)
            if connection.abandoned and connection.outstanding == 0:
                del connection
                forget(thread, socket)
                socket = NULL
        elif http1.reply(<Http1Connection*> socket.front, request):
            forget(thread, socket)
            socket = NULL
        if socket != NULL:
            mark_dirty(thread, socket)
        request = following


cdef void deliver_cold(IoThread* thread) noexcept nogil:
    cdef size_t index
    cdef ColdReply* part
    cdef Socket* socket
    thread.cold_replies.take(&thread.cold_parts)
    for index in range(thread.cold_parts.size()):
        part = thread.cold_parts[index]
        if part.call.reply_to.stream != NULL:
            socket = <Socket*> part.call.reply_to.socket
            thread.current = socket
            if socket.transport == Transport.kHttp2:
                http2_cold_reply(<Http2Connection*> socket.front, part)
            else:
                http1.cold_reply(<Http1Connection*> socket.front, part)
            mark_dirty(thread, socket)
        drop(part.call)
        del part
    thread.cold_parts.clear()


# Time.
cdef void listen_again(IoThread* thread) noexcept nogil:
    cdef size_t index
    if thread.accepting or thread.drain_seen:
        return
    thread.accepting = True
    for index in range(thread.shared.listeners.size()):
        watch(thread.epoll_fd, EPOLL_CTL_DEL, thread.shared.listeners[index], 0, NULL)
        watch_listener(thread, index)


cdef void watch_listener(IoThread* thread, size_t index) noexcept nogil:
    watch(thread.epoll_fd, EPOLL_CTL_ADD, thread.shared.listeners[index], EPOLLIN | EPOLLEXCLUSIVE,
          <void*> (<uint64_t> index << 1 | LISTENER))


cdef void tick(IoThread* thread) noexcept nogil:
    cdef Socket* socket = thread.sockets
    cdef Socket* following
    cdef int64_t due, now = thread.sink.now_ns
    while socket != NULL:
        following = socket.next
        if socket.gone:
            pass
        elif socket.transport == Transport.kUnknown:
            if now > socket.opened_ns + thread.shared.limits.header_timeout_ms * 1000000:
                close_socket(thread, socket)
        elif socket.transport == Transport.kHttp1:
            due = http1.next_deadline(<Http1Connection*> socket.front)
            if thread.drain_seen and not http1.awaits_answers(<Http1Connection*> socket.front):
                close_socket(thread, socket)
            elif due and due <= now:
                thread.current = socket
                http1.on_timeout(<Http1Connection*> socket.front)
                mark_dirty(thread, socket)
        socket = following
    listen_again(thread)
    if thread.index == 0:
        end_overdue_runs(&thread.shared.pool, now)
    thread.next_tick_ns = now + TICK_NS


cdef void follow_drain(IoThread* thread) noexcept nogil:
    """Step 1: no more connections, and every HTTP/2 client is told to go elsewhere. Step 2: the final GOAWAY."""
    cdef int step = thread.shared.drain_step.load()
    cdef size_t index
    cdef Socket* socket = thread.sockets
    if step == thread.drain_seen:
        return
    if thread.drain_seen == 0:
        for index in range(thread.shared.listeners.size()):
            accept_all(thread, thread.shared.listeners[index])
            watch(thread.epoll_fd, EPOLL_CTL_DEL, thread.shared.listeners[index], 0, NULL)
    thread.drain_seen = step
    while socket != NULL:
        if not socket.gone and socket.transport == Transport.kHttp2:
            http2.drain(<Http2Connection*> socket.front, step > 1)
            mark_dirty(thread, socket)
        socket = socket.next


cdef void handle(IoThread* thread, epoll_event* event) noexcept nogil:
    cdef uint64_t tag = <uint64_t> event.data.ptr
    cdef uint64_t wakes
    cdef Socket* socket
    if tag == 0:
        eventfd_read(thread.wake_fd, &wakes)
        return
    if tag & LISTENER:
        accept_all(thread, thread.shared.listeners[tag >> 1])
        return
    socket = <Socket*> event.data.ptr
    if socket.gone:
        return
    if event.events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
        if event.events & (EPOLLHUP | EPOLLERR) and not event.events & EPOLLIN:
            close_socket(thread, socket)
            return
        on_readable(thread, socket)
    if event.events & EPOLLOUT and not socket.gone:
        socket.waits_to_write = False
        mark_dirty(thread, socket)
        arm(thread, socket)


cdef void* run(void* argument) noexcept nogil:
    cdef IoThread* thread = <IoThread*> argument
    cdef Shared* shared = thread.shared
    cdef epoll_event events[EVENTS]
    cdef InferRequest* answered
    cdef InferRequest* completed
    cdef int ready, index
    watch(thread.epoll_fd, EPOLL_CTL_ADD, thread.wake_fd, EPOLLIN, NULL)
    for index in range(<int> shared.listeners.size()):
        watch_listener(thread, index)
    while not shared.stopping.load():
        ready = wait_events(thread.epoll_fd, events, EVENTS, 100 if thread.sockets != NULL or not thread.accepting else 1000)
        thread.sink.now_ns = thread.busy_since_ns = now_ns()
        thread.seen_generation.store(shared.generation.load())
        thread.table = shared.table.load()
        for index in range(ready):
            handle(thread, &events[index])
        completed = take_completions(thread)
        if thread.touched.size():
            run_touched(thread)
        thread.sink.now_ns = now_ns()
        answered = thread.answered
        thread.answered = NULL
        deliver(thread, answered)
        deliver(thread, completed)
        deliver_cold(thread)
        follow_drain(thread)
        if thread.sink.now_ns >= thread.next_tick_ns:
            tick(thread)
        flush(thread)
    while thread.sockets != NULL:
        close_at_end(thread, thread.sockets)
    return NULL


cdef void close_at_end(IoThread* thread, Socket* socket) noexcept nogil:
    """The pool has stopped and nothing comes back any more: what is still outstanding is let go."""
    if not socket.gone:
        close(socket.fd)
    forget(thread, socket)
