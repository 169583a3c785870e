// The kernel's calls behind pacer.pyx.
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>

namespace batchmill {

struct CoreTime {
    int64_t ran_ns = 0, waited_ns = 0, runs = 0;  // waited: ready to run, and did not; runs: times it got the core
};

struct Pacer {
    int account = -1;             // the kernel's account of the I/O thread's time (schedstat); -1: it keeps none
    CoreTime seen;                // ... when it was last read
    int64_t paced_ns = 0;         // what the pacing thread had run until then
    int64_t looked_ns = 0;
    int start_fd = -1;            // an eventfd that the pacing thread rests on
    bool made = false;            // whether there is a pacing thread: only once it is needed
    pthread_t thread;
    std::atomic<int> core{0};     // that the I/O thread was last seen on
    std::atomic<int64_t> until_ns{0};
    std::atomic<bool> ending{false};
};

// The calling thread asks to run for so long at a time. The C library has had a wrapper since glibc 2.41 only.
inline void ask_slice(uint64_t slice_ns) {
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } wish{48, SCHED_OTHER, 0, getpriority(PRIO_PROCESS, 0), 0, slice_ns, 0, 0};
    syscall(SYS_sched_setattr, 0, &wish, 0);
}

inline int open_account() { return open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC); }

// The time of the thread of an account since it began; zeros if that cannot be read.
inline CoreTime read_account(int account) {
    char text[96];
    long long ran, waited, runs;
    ssize_t size = pread(account, text, sizeof text - 1, 0);
    if (size <= 0) return {};
    text[size] = 0;
    if (sscanf(text, "%lld %lld %lld", &ran, &waited, &runs) != 3) return {};
    return {ran, waited, runs};
}

// The CPU time that another thread has used.
inline int64_t cpu_ns(pthread_t thread) {
    clockid_t clock;
    timespec used{};
    if (pthread_getcpuclockid(thread, &clock) == 0) clock_gettime(clock, &used);
    return used.tv_sec * 1000000000LL + used.tv_nsec;
}

inline void move_to(int core) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

}  // namespace batchmill
