"""Gets an I/O thread back on its core when the kernel leaves it waiting there.

Linux takes a core from a running thread at its timer tick, 4 ms apart with CONFIG_HZ=250. So where an I/O thread shares
its core, with Python for example, each time that the other one wakes up all answers come a tick late, however nice that
is. A thread that wakes on the core makes the scheduler choose anew, and it chooses the I/O thread, which has asked for a
shorter slice (EEVDF with slices of one's own: Linux 6.12; before it this does little).

Such a wake costs 3 µs, on some virtual machines 30. So there is a pacing thread only once the kernel's own account says
that the I/O thread waited for its core 1% of the time, and it rests when that has not been so for a second. What the
pacing thread itself took is not counted, nor is a microsecond for each time that the I/O thread was woken: else a paced
thread would be paced for ever. Beside a large model's executor, which each wake would interrupt, the I/O thread runs for little of
the time, and is owed the core when it wakes: its waits are many and short, and no pacing would make them shorter.
"""

from libc.stdint cimport int64_t, uint64_t
from libcpp cimport bool as cpp_bool

from batchmill.core.clock cimport now_ns
from batchmill.core.threads cimport pthread_join, pthread_t, start_thread

cdef extern from "pacer.hpp" namespace "batchmill" nogil:
    void ask_slice(uint64_t slice_ns)
    int open_account()
    int64_t cpu_ns(pthread_t thread)
    void move_to(int core)

cdef extern from * nogil:
    int sched_getcpu()
    int eventfd(unsigned int value, int flags)
    int eventfd_read(int fd, uint64_t* value)
    int eventfd_write(int fd, uint64_t value)
    int EFD_CLOEXEC
    int close(int fd)
    int usleep(unsigned int microseconds)

cdef enum:
    SLICE_NS = 100000           # the least that the kernel grants
    PERIOD_US = 500             # between two wakes
    WAITED_PART = 100           # paced when the I/O thread waited for more than a hundredth of the time ...
    WAKE_NS = 1000              # ... beside what a wake-up takes ...
    BUSY_PART = 3               # ... and ran for more than a third of it: who has had less than his share gets the core as he wakes
cdef int64_t PACED_NS = 1000000000


cdef void* pace(void* argument) noexcept nogil:
    cdef Pacer* pacer = <Pacer*> argument
    cdef uint64_t starts
    cdef int core = -1
    ask_slice(SLICE_NS)
    while True:
        eventfd_read(pacer.start_fd, &starts)
        while now_ns() < pacer.until_ns.load():
            if pacer.ending.load():
                return NULL
            if core != pacer.core.load():
                core = pacer.core.load()
                move_to(core)
            usleep(PERIOD_US)
        if pacer.ending.load():
            return NULL


cdef void begin(Pacer* pacer, int64_t now) noexcept nogil:
    ask_slice(SLICE_NS)
    pacer.account = open_account()
    pacer.seen = read_account(pacer.account)
    pacer.looked_ns = now


cdef void look(Pacer* pacer, int64_t now) noexcept nogil:
    cdef CoreTime time = read_account(pacer.account)
    cdef int64_t paced_ns = cpu_ns(pacer.thread) if pacer.made else 0
    cdef int64_t passed = now - pacer.looked_ns
    cdef int64_t waited = time.waited_ns - pacer.seen.waited_ns - (time.runs - pacer.seen.runs) * WAKE_NS - (paced_ns - pacer.paced_ns)
    cdef cpp_bool late = waited * WAITED_PART > passed
    cdef cpp_bool busy = (time.ran_ns - pacer.seen.ran_ns) * BUSY_PART > passed
    pacer.seen, pacer.paced_ns, pacer.looked_ns = time, paced_ns, now
    pacer.core.store(sched_getcpu())
    if not late or not busy:
        return
    pacer.until_ns.store(now + PACED_NS)
    if not pacer.made:
        pacer.start_fd = eventfd(0, EFD_CLOEXEC)
        pacer.made = pacer.start_fd >= 0 and start_thread(&pacer.thread, pace, pacer, b"pacer", -1)
    if pacer.made:
        eventfd_write(pacer.start_fd, 1)


cdef void end(Pacer* pacer) noexcept nogil:
    if pacer.made:
        pacer.ending.store(True)
        eventfd_write(pacer.start_fd, 1)
        pthread_join(pacer.thread, NULL)
        pacer.made = False
    if pacer.start_fd >= 0:
        close(pacer.start_fd)
    if pacer.account >= 0:
        close(pacer.account)
