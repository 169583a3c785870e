"""The data plane as Python sees it: listeners, threads, the route table, signals, and the end of all of them."""

import os
import socket as sockets

from libc.stdint cimport int32_t, int64_t, uint64_t

from batchmill.core.access_log cimport taken_from
from batchmill.core.batch cimport Scratch
from batchmill.core.bridge cimport Bridge
from batchmill.core.executor cimport forget, offer, start as start_pool, stop as stop_pool
from batchmill.core.intake cimport IoThread, Listener, Shared, connect_sink, kMaxIoThreads
from batchmill.core.io_thread cimport run as run_io_thread
from batchmill.core.route_table cimport new_table
from batchmill.core.router cimport RouteTable, Version, kMaxThreads
from batchmill.core.shadow cimport drop_all, start as start_shadows, stop as stop_shadows
from batchmill.core.shadow_figures cimport end_shadows
from batchmill.core.threads cimport pthread_join, start_thread

from batchmill.core.histogram import CODE_NAMES

cdef extern from * nogil:
    """
    #include <errno.h>
    #include <netdb.h>
    #include <signal.h>
    #include <sys/stat.h>
    #include "io_thread.hpp"

    static batchmill::Shared* volatile batchmill_shared = nullptr;
    static volatile int batchmill_signal_fd = -1;
    static std::atomic<int> batchmill_signals{0}, batchmill_first_signal{0};

    // Not ready at once, even when Python is late. Only async-signal-safe calls.
    static void batchmill_on_signal(int number) {
        int error = errno;
        if (batchmill_signals.fetch_add(1) == 0) batchmill_first_signal.store(number);
        if (batchmill_shared) batchmill_shared->draining.store(true);
        uint64_t one = 1;
        if (write(batchmill_signal_fd, &one, sizeof one) < 0) {}
        errno = error;
    }
    static void batchmill_install(batchmill::Shared* shared, int fd) {
        batchmill_shared = shared;
        batchmill_signal_fd = fd;
        struct sigaction action {};
        action.sa_handler = batchmill_on_signal;
        action.sa_flags = SA_RESTART;
        sigaction(SIGTERM, &action, nullptr);
        sigaction(SIGINT, &action, nullptr);
    }
    static void batchmill_uninstall() { batchmill_shared = nullptr; }

    static int batchmill_listen(const char* host, const char* port, int* fd) {
        addrinfo hints{}, *found = nullptr;
        hints.ai_socktype = SOCK_STREAM;
        hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
        int failed = getaddrinfo(host, port, &hints, &found);
        if (failed) return -EADDRNOTAVAIL;
        *fd = -EADDRNOTAVAIL;
        for (addrinfo* at = found; at && *fd < 0; at = at->ai_next) *fd = batchmill::listen_tcp(at->ai_addr, at->ai_addrlen);
        freeaddrinfo(found);
        return *fd < 0 ? *fd : 0;
    }
    static bool batchmill_is_served(const sockaddr_un& address) {
        int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (probe < 0) return false;
        bool served = connect(probe, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 || errno == EAGAIN;
        close(probe);
        return served;
    }
    static int batchmill_listen_unix(const char* path, int* fd) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        if (strlen(path) >= sizeof address.sun_path) return -ENAMETOOLONG;
        strcpy(address.sun_path, path);
        struct stat existing;
        if (stat(path, &existing) == 0 && S_ISSOCK(existing.st_mode)) {
            if (batchmill_is_served(address)) return -EADDRINUSE;
            unlink(path);  // left behind by a server that was killed
        }
        *fd = batchmill::listen_tcp(reinterpret_cast<sockaddr*>(&address), sizeof address);
        return *fd < 0 ? *fd : 0;
    }
    """
    void install_handlers "batchmill_install"(Shared* shared, int fd)
    void uninstall_handlers "batchmill_uninstall"()
    int signals_seen "batchmill_signals.load"()
    int first_signal_seen "batchmill_first_signal.load"()
    int listen_on "batchmill_listen"(const char* host, const char* port, int* fd)
    int listen_on_path "batchmill_listen_unix"(const char* path, int* fd)

cdef extern from "<unistd.h>" nogil:
    int usleep(unsigned int microseconds)

cdef extern from "<sys/epoll.h>" nogil:
    int epoll_create1(int flags)
    int EPOLL_CLOEXEC


cdef class Server:
    """Owns the data plane's threads. Made stopped; listen(), start(), publish() ... drain(), stop(). Not started twice."""

    def __cinit__(self, *, int io_threads, int executor_threads, int64_t max_body_bytes, int64_t max_response_bytes,
                  int64_t max_pending_bytes, int64_t max_connections, int64_t max_streams, int64_t max_header_bytes,
                  int64_t header_timeout_ms, int64_t idle_timeout_ms, int64_t min_body_rate, int64_t max_resets,
                  int64_t max_resets_per_s, int32_t busy_status, int64_t cold_calls, int64_t cold_bytes):
        cdef IoThread* thread
        cdef int index
        if not 1 <= io_threads <= kMaxIoThreads or not 1 <= executor_threads <= kMaxThreads - io_threads:
            raise ValueError(f"1 to {kMaxIoThreads} I/O threads and, with the executors, at most {kMaxThreads}")
        self.shared = new Shared()
        self.shared.limits.max_body_bytes, self.shared.limits.max_response_bytes = max_body_bytes, max_response_bytes
        self.shared.limits.max_header_bytes, self.shared.limits.max_streams = max_header_bytes, max_streams
        self.shared.limits.max_resets, self.shared.limits.max_resets_per_s = max_resets, max_resets_per_s
        self.shared.limits.header_timeout_ms, self.shared.limits.idle_timeout_ms = header_timeout_ms, idle_timeout_ms
        self.shared.limits.min_body_rate, self.shared.limits.busy_status = min_body_rate, busy_status
        self.shared.budget.limit.store(max_pending_bytes)
        self.shared.pool.max_body_bytes, self.shared.pool.budget = <size_t> max_body_bytes, &self.shared.budget
        self.shared.max_connections = max_connections
        self.shared.cold_queue.max_calls, self.shared.cold_queue.max_bytes = cold_calls, cold_bytes
        self.shared.cold_queue.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.signal_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.shared.shadows.draining, self.shared.shadows.due = &self.shared.draining, &self.shared.pool.turns.due_count
        self.shared.shadows.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.executors = executor_threads
        self.routed, self.versions = set(), set()
        self.bridge = Bridge()
        self.bridge.queue = &self.shared.cold_queue
        self.bridge.calls = {}
        self.bridge.server = self
        for index in range(io_threads):
            thread = new IoThread()
            thread.shared = self.shared
            thread.index = index
            thread.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
            thread.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            thread.completions.wake_fd = thread.cold_replies.wake_fd = thread.wake_fd
            thread.scratch = new Scratch(index)
            connect_sink(thread)
            self.threads.push_back(thread)
            self.shared.pool.completions.push_back(&thread.completions)
            self.shared.shadows.homes.push_back(&thread.home)
            self.bridge.replies.push_back(&thread.cold_replies)

    def listen(self, str host, int port, *, bint metrics_only=False) -> int:
        """Binds a TCP listener (port 0: any) and returns its port. Before start(). Raises OSError.

        metrics_only: it serves /metrics, liveness and readiness, and nothing else.
        """
        cdef int fd = -1
        cdef Listener listener
        cdef bytes name = host.encode(), number = str(port).encode()
        cdef int failed = listen_on(name, number, &fd)
        if failed:
            raise OSError(-failed, f"{host}:{port}: {os.strerror(-failed)}")
        listener.fd, listener.metrics_only = fd, metrics_only
        self.shared.listeners.push_back(listener)
        with sockets.socket(fileno=os.dup(fd)) as copy:
            return copy.getsockname()[1]

    def listen_unix(self, str path) -> None:
        """The same on a unix socket."""
        cdef int fd = -1
        cdef Listener listener
        cdef bytes name = os.fsencode(path)
        cdef int failed = listen_on_path(name, &fd)
        if failed:
            raise OSError(-failed, f"{path}: {os.strerror(-failed)}")
        listener.fd, listener.metrics_only = fd, False
        self.shared.listeners.push_back(listener)

    def open_access_log(self, double share) -> None:
        """This share of the answered requests, 0 to 1, is kept for access_log(). Before start()."""
        cdef size_t index
        for index in range(self.threads.size()):
            self.threads[index].access_log.open(share, index)

    def access_log(self) -> list:
        """What was kept since the last call, a dict each. One thread at a time."""
        cdef size_t index
        found = []
        for index in range(self.threads.size()):
            found += taken_from(&self.threads[index].access_log)
        return found

    def start(self) -> None:
        """Starts the threads: from here on connections are accepted, and liveness is answered."""
        cdef size_t index
        if self.started:
            raise RuntimeError("started twice")
        self.started = True
        if not start_pool(&self.shared.pool, self.executors, <int> self.threads.size()) or (
                self.shared.shadows.active.load() and not start_shadows(&self.shared.shadows)):
            raise OSError("cannot create threads")
        for index in range(self.threads.size()):
            if not start_thread(&self.threads[index].thread, run_io_thread, self.threads[index], b"io", <int> index):
                raise OSError("cannot create threads")

    def publish(self, table, bint complete=True) -> None:
        """Swaps the route table: a RouteEntry for each model. Visible to the next request.

        complete: what is not in it is not there; until then it is said to be loading.
        """
        cdef const RouteTable* old = self.shared.table.load()
        cdef Version version
        all_routed, epochs = set(), {}
        cdef RouteTable* fresh = new_table(table, complete, all_routed, epochs)
        if epochs and self.started and not start_shadows(&self.shared.shadows):
            raise OSError("cannot create threads")
        self.shared.shadows.active.store(bool(epochs))
        self.shared.table.store(fresh)
        self.shared.generation.fetch_add(1)
        self.await_generation()
        self.routed = all_routed
        self.versions |= all_routed
        for version in self.versions:
            end_shadows(version, epochs.get(version, 0))
        del old

    def await_generation(self) -> None:
        """Returns once every I/O thread has seen the last table that was published."""
        cdef size_t index
        cdef uint64_t wanted = self.shared.generation.load()
        if not self.started:
            return
        self.wake()
        with nogil:
            for index in range(self.threads.size()):
                while self.threads[index].seen_generation.load() < wanted:
                    usleep(50)

    def release(self, Version version) -> bool:
        """True: the data plane has let go of a version that is in no table any more, and it may be destroyed. False: ask again.

        Requests hold leases on it; after the last, an I/O thread may still name it in the turn in hand, and an executor
        until it has given the instance back.
        """
        if version in self.routed or version.native.leases.load() or version.native.is_shadowing():
            return False
        self.shared.generation.fetch_add(1)
        self.await_generation()
        if not forget(&self.shared.pool, version.native):
            return False
        if version in self.versions:
            self.versions.remove(version)
        return True

    def look_again(self, Version version) -> None:
        """Of a version that serves: has an executor decide anew on what waits, by limits that have changed meanwhile."""
        with nogil:
            offer(&self.shared.pool, version.native)

    cdef wake(self):
        cdef size_t index
        for index in range(self.threads.size()):
            os.eventfd_write(self.threads[index].wake_fd, 1)

    def set_ready(self, bint ready) -> None:
        """What readiness says, as long as the server does not drain."""
        self.shared.ready.store(ready)

    def ready(self) -> bool:
        """What readiness says."""
        return self.shared.ready.load() and not self.shared.draining.load()

    def install_signals(self) -> None:
        """SIGTERM and SIGINT: not ready at once, natively; signal_fileno() becomes readable, signal_count() counts."""
        install_handlers(self.shared, self.signal_fd)

    def signal_fileno(self) -> int:
        return self.signal_fd

    def signal_count(self) -> int:
        return signals_seen()

    def first_signal(self) -> int:
        """The number of the signal that came first; 0 while none has."""
        return first_signal_seen()

    def drain(self, bint final=False) -> None:
        """Accepts what has connected, closes the listeners, sends GOAWAY: the notice, or with final the last word."""
        self.shared.draining.store(True)
        self.shared.pool.turns.draining.store(True)
        self.shared.drain_step.store(2 if final else 1)
        self.wake()

    def idle(self) -> bool:
        """Whether every accepted inference has been answered."""
        return self.shared.in_flight.load() == 0

    def stop(self) -> None:
        """Joins all threads and closes all sockets. What is still unanswered is cut."""
        cdef size_t index
        uninstall_handlers()
        if not self.started:
            return
        with nogil:
            stop_shadows(&self.shared.shadows)
            stop_pool(&self.shared.pool)
        self.shared.stopping.store(True)
        self.wake()
        for index in range(self.threads.size()):
            with nogil:
                pthread_join(self.threads[index].thread, NULL)
        drop_all(&self.shared.shadows)
        self.started = False    # until here publish() and release() wait for the threads, which go on using versions
        for index in range(self.shared.listeners.size()):
            os.close(self.shared.listeners[index].fd)
        self.shared.listeners.clear()

    def stats(self) -> dict:
        """Gauges and counters of the whole server."""
        cdef int code
        cdef size_t index
        return {
            "connections": self.shared.connections.load(), "in_flight": self.shared.in_flight.load(),
            "pending_bytes": self.shared.budget.used.load(),
            "refused": {"connections": self.shared.refused_connections.load()},
            "access_log_dropped": sum([self.threads[index].access_log.dropped.load() for index in range(self.threads.size())]),
            "requests": {CODE_NAMES[code]: self.shared.outcome[code].load() for code in range(17) if self.shared.outcome[code].load()},
        }
