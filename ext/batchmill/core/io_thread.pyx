"""The epoll loop of one I/O thread: accept, read, run, deliver, write, time out.

One turn: all ready sockets are read and what they ask is queued, or refused at once; then what may run here runs; then the
answers of this turn, of the executors and of Python are given to the front ends; then every socket with something to say is
written once.
"""

from libc.errno cimport ECONNABORTED, EINTR, EMFILE, ENFILE, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from batchmill.core cimport http1, http2
from batchmill.core.bridge cimport drop
from batchmill.core.clock cimport now_ns
from batchmill.core.executor cimport end_overdue_runs, sweep_queue
from batchmill.core.front cimport ColdReply, ColdReplyKind
from batchmill.core.http1 cimport Http1Connection
from batchmill.core.http2_exchange cimport refuse_slow
from batchmill.core.http2_reply cimport cold_reply as http2_cold_reply, reply as http2_reply
from batchmill.core.http2_stream cimport Http2Connection
from batchmill.core.intake cimport (
    Listener, Shared, Socket, Transport, compresses, count, expire, free_returned, hand_up, infer_for, run_touched, take_completions,
)
from batchmill.core.io_socket cimport (
    EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLLERR, EPOLLEXCLUSIVE, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP,
    arm, close_socket, forget, mark_dirty, on_readable, watch, write_socket,
)
from batchmill.core.message cimport InferRequest
from batchmill.core.notes cimport Coding
from batchmill.core.pacer cimport begin as begin_pacing, end as end_pacing, look as look_at_pacing
from batchmill.core.queue cimport RequestQueue
from batchmill.core.router cimport ModelRoute
from batchmill.core.shadow_run cimport end_overdue_shadow

cdef extern from * nogil:
    """
    #include <poll.h>
    #include "io_thread.hpp"
    // Until something is to be delivered (true), or so long.
    static inline bool batchmill_rest(int wake_fd, int64_t ns) {
        pollfd one{wake_fd, POLLIN, 0};
        timespec time{0, static_cast<long>(ns > 0 ? ns : 0)};
        return ppoll(&one, 1, &time, nullptr) > 0;
    }
    """
    bint rest_for "batchmill_rest"(int wake_fd, int64_t ns)

    ctypedef union epoll_data_t:
        void* ptr
    ctypedef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_wait(int epoll_fd, epoll_event* events, int count, int timeout_ms)
    int accept_socket "batchmill::accept_socket"(int listener, char* peer, size_t size)
    int close(int fd)
    int eventfd_read(int fd, uint64_t* value)

cdef enum:
    EVENTS = 256                    # one epoll_wait returns at most so many sockets
    FLOOD_EVENTS = 4

# More requests than that in one turn: the sockets have more of them than are served meanwhile. To take them all in would fill the queue and
# refuse the rest, though they only had to wait in their sockets; and the first of them would wait for the last to be read. A turn reads a
# little of few sockets then, until one has found hardly any.
cdef int FLOOD_REQUESTS = 512
cdef int CALM_REQUESTS = 64
cdef int64_t TICK_NS = 100000000    # how often timeouts are looked at
cdef uint64_t LISTENER = 1          # tag in the low bit of a listener's event data


cdef void accept_all(IoThread* thread, const Listener& listener) noexcept nogil:
    cdef Socket* socket
    cdef char peer[64]
    cdef int fd
    while True:
        fd = accept_socket(listener.fd, peer, sizeof(peer))
        if fd < 0:
            if errno == ECONNABORTED or errno == EINTR:
                continue
            if errno == EMFILE or errno == ENFILE:
                thread.accepting = False        # looked at again at the next tick: does not spin
                watch(thread.epoll_fd, EPOLL_CTL_DEL, listener.fd, 0, NULL)
            return
        if thread.shared.connections.fetch_add(1) >= thread.shared.max_connections:
            thread.shared.connections.fetch_sub(1)
            thread.shared.refused_connections.fetch_add(1)
            close(fd)
            continue
        socket = new Socket()
        socket.fd = fd
        socket.metrics_only = listener.metrics_only
        memcpy(socket.peer, peer, sizeof(peer))
        socket.opened_ns = thread.sink.now_ns
        socket.next = thread.sockets
        if socket.next != NULL:
            socket.next.previous = socket
        thread.sockets = socket
        watch(thread.epoll_fd, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLRDHUP, socket)


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
        if request.answer_by_ns:
            expire(thread, request)
        if request.answer_coding != Coding.kIdentity and compresses(thread, request):
            request = following
            continue
        socket = <Socket*> request.reply_to.socket
        count(thread, request)
        thread.current = socket
        if socket == NULL:
            hand_up(thread, request)
        elif socket.transport == Transport.kHttp2:
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


cdef void answer_refused(IoThread* thread, Socket* socket) noexcept nogil:
    """Before the next socket is read: the memory of those who were turned away is in the cache still, and serves for its requests."""
    cdef InferRequest* refused = thread.answered
    cdef int64_t read_ns = thread.sink.now_ns
    if refused == NULL or socket.gone:
        return
    thread.answered = NULL
    thread.sink.now_ns = now_ns()
    deliver(thread, refused)
    thread.sink.now_ns = read_ns
    if not socket.waits_to_write:
        write_socket(thread, socket)


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
            if part.kind == ColdReplyKind.kInfer:
                infer_for(thread, part)
            elif socket.transport == Transport.kHttp2:
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
        watch(thread.epoll_fd, EPOLL_CTL_DEL, thread.shared.listeners[index].fd, 0, NULL)
        watch_listener(thread, index)


cdef void watch_listener(IoThread* thread, size_t index) noexcept nogil:
    watch(thread.epoll_fd, EPOLL_CTL_ADD, thread.shared.listeners[index].fd, EPOLLIN | EPOLLEXCLUSIVE,
          <void*> (<uint64_t> index << 1 | LISTENER))


cdef void sweep_queues(IoThread* thread, int64_t now) noexcept nogil:
    """Of the versions that serve: who has gone or is late gives his place free before his turn."""
    cdef size_t index, at
    cdef const ModelRoute* route
    cdef RequestQueue* queue
    if thread.table == NULL:
        return
    for index in range(thread.table.routes.size()):
        route = thread.table.routes[index].get()
        for at in range(route.versions.size()):
            queue = &route.versions[at].second.queue
            if queue.requests.load() or queue.swept.load() != NULL:     # swept when one came that was refused: nobody may come to take it
                sweep_queue(&thread.shared.pool, route.versions[at].second, now)


cdef void tick(IoThread* thread) noexcept nogil:
    cdef Socket* socket = thread.sockets
    cdef Socket* following
    cdef int64_t due, now = thread.sink.now_ns
    while socket != NULL:
        following = socket.next
        if socket.gone:
            pass
        elif socket.linger_until_ns:
            if now > socket.linger_until_ns:
                close_socket(thread, socket)
        elif socket.transport == Transport.kUnknown:
            if now > socket.opened_ns + thread.shared.limits.header_timeout_ms * 1000000:
                close_socket(thread, socket)
        elif socket.transport == Transport.kHttp2:
            if refuse_slow(<Http2Connection*> socket.front):
                mark_dirty(thread, socket)
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
    look_at_pacing(&thread.pacer, now)
    free_returned(thread)
    if thread.index == 0:
        end_overdue_runs(&thread.shared.pool, now)
        end_overdue_shadow(&thread.shared.shadows)
        sweep_queues(thread, now)
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
            watch(thread.epoll_fd, EPOLL_CTL_DEL, thread.shared.listeners[index].fd, 0, NULL)
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
        answer_refused(thread, socket)
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
    cdef uint64_t wakes
    cdef bint reads                     # in this turn, sockets
    begin_pacing(&thread.pacer, now_ns())
    watch(thread.epoll_fd, EPOLL_CTL_ADD, thread.wake_fd, EPOLLIN, NULL)
    for index in range(<int> shared.listeners.size()):
        watch_listener(thread, index)
    while not shared.stopping.load():
        # Of a rest that answers end only these are seen to, as long as there is work for the executors.
        reads = (thread.collecting.until_ns == 0 or not rest_for(thread.wake_fd, thread.collecting.until_ns - now_ns())
                 or not shared.pool.is_busy())
        if reads:
            ready = epoll_wait(thread.epoll_fd, events, FLOOD_EVENTS if thread.flooded else EVENTS,
                               100 if thread.sockets != NULL or not thread.accepting else 1000)
        else:
            ready = 0
            eventfd_read(thread.wake_fd, &wakes)
        thread.sink.now_ns = thread.busy_since_ns = now_ns()
        if reads:
            thread.collecting.begin_reading(thread.sink.now_ns)
        thread.seen_generation.store(shared.generation.load())
        thread.table = shared.table.load()
        thread.sink.watched = &thread.table.watched if thread.table != NULL and thread.table.watched.names.size() else NULL
        for index in range(ready):
            handle(thread, &events[index])
        thread.sink.behind_ns = 0   # what was read before and is parsed only now was not read late with the last socket
        deliver_cold(thread)        # first: it may ask for an inference
        completed = take_completions(thread)
        if thread.touched.size():
            run_touched(thread)
        thread.sink.now_ns = now_ns()
        answered = thread.answered
        thread.answered = NULL
        deliver(thread, answered)
        deliver(thread, completed)
        if reads:
            thread.flooded = thread.taken_in > (CALM_REQUESTS if thread.flooded else FLOOD_REQUESTS)
            thread.collecting.end_turn(thread.taken_in, shared.pool.is_busy(), thread.sink.now_ns)
            thread.taken_in = 0
        follow_drain(thread)
        if thread.sink.now_ns >= thread.next_tick_ns:
            tick(thread)
        flush(thread)
    end_pacing(&thread.pacer)
    while thread.sockets != NULL:
        close_at_end(thread, thread.sockets)
    thread.seen_generation.store(<uint64_t> -1)     # nobody needs to wait for this thread any more
    return NULL


cdef void close_at_end(IoThread* thread, Socket* socket) noexcept nogil:
    """The pool has stopped and nothing comes back any more: what is still outstanding is let go."""
    if not socket.gone:
        close(socket.fd)
    forget(thread, socket)
