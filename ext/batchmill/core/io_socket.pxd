# One socket of an I/O thread and the front end behind it.
from libc.stdint cimport uint32_t

from batchmill.core.intake cimport IoThread, Socket

cdef extern from "io_thread.hpp" namespace "batchmill" nogil:
    void watch(int epoll_fd, int operation, int fd, uint32_t events, void* data)

cdef extern from "<sys/epoll.h>" nogil:
    uint32_t EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP, EPOLLEXCLUSIVE
    int EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL

cdef void on_readable(IoThread* thread, Socket* socket) noexcept nogil
cdef void write_socket(IoThread* thread, Socket* socket) noexcept nogil     # all there is to say, as far as the peer takes it
cdef void mark_dirty(IoThread* thread, Socket* socket) noexcept nogil       # it has something to say: flush() writes it
cdef void arm(IoThread* thread, Socket* socket) noexcept nogil              # tells epoll what it waits for
cdef void close_socket(IoThread* thread, Socket* socket) noexcept nogil     # the descriptor now, the socket with its last request
cdef void forget(IoThread* thread, Socket* socket) noexcept nogil           # frees a socket whose front end has been freed
