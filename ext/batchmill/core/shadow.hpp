// Shadow traffic: requests that were answered are run once more by a candidate, in idle time, and the answers compared.
#pragma once
#include <pthread.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <vector>

#include "comparison.hpp"
#include "message.hpp"
#include "ort_api.hpp"

namespace batchmill {

// Last in, first out, without a lock: the thread that runs shadows may be put off for long at any instruction, and who waited for a lock
// that it holds would be put off with it. Who takes takes all, so that no element can come back under a hand that still compares it.
struct RequestStack {
    std::atomic<InferRequest*> head{nullptr};

    void push(InferRequest* request) {
        request->next = head.load(std::memory_order_relaxed);
        while (!head.compare_exchange_weak(request->next, request)) {}
    }
    InferRequest* take() { return head.load(std::memory_order_relaxed) ? head.exchange(nullptr, std::memory_order_acquire) : nullptr; }
};

struct ShadowSettings {
    int64_t max_pending_bytes = 64 << 20;  // of requests that wait for it
    double max_cpu = 0;                    // cores it may take; 0: what is idle, of one
    Tolerance tolerance;
    int64_t keep = 8;                      // worst disagreements
    bool redact = false;                   // of them scores and shapes alone
};

// One candidate's share of a model's traffic, from when it was asked for until it ends. Owned by its version; who holds a reference keeps both.
struct Shadow {
    Version* version = nullptr;
    uint64_t epoch = 0;                    // names it: another one has other figures
    ShadowSettings settings;
    std::atomic<bool> active{true};        // false: what waits is dropped, and nothing new comes
    std::atomic<bool> paired{false};       // run times of the versions that answer may be measured, too: none of them uses the wide pool
    std::atomic<int64_t> references{0};    // requests that are to be run by it, from their routing on
    std::atomic<int64_t> pending_bytes{0}, pending{0};

    // mirrored = compared + errors + shed + expired + dropped + pending.
    std::atomic<uint64_t> mirrored{0};     // answered well, and to be compared
    std::atomic<uint64_t> shed{0};         // not run: there was no room for them, or requests of callers waited
    std::atomic<uint64_t> dropped{0};      // not run: it ended, or the server drained

    // Written by the thread that runs shadows.
    Counter compared{0}, agreeing{0}, errors{0}, expired{0}, batches{0}, rows{0}, cpu_ns{0};
    RunningMoments log_ratio;              // of run times: the candidate's by the answering version's for the same batch, one after the other
    uint64_t measured = 0;                 // batches when that was taken last
    std::vector<OutputFigures> outputs;    // by the candidate's signature
    int64_t allowed_ns = 0;                // when it may run again, by max_cpu

    std::mutex mutex;                      // never taken by a thread of the data plane; guards:
    std::vector<Disagreement> worst;       // the greatest first
    std::string last_error;

    explicit Shadow(size_t output_count) : outputs(output_count) {}
    void lock() { mutex.lock(); }
    void unlock() { mutex.unlock(); }
    // After it the shadow and its version may be gone.
    void let_go() { references.fetch_sub(1, std::memory_order_release); }
    void end() {
        active.store(false);
        std::lock_guard<std::mutex> held(mutex);
        worst.clear();
    }
};

// The thread that runs shadows, and the way of requests there and back.
struct ShadowLine {
    static constexpr int64_t kMostPending = 1024;  // of a shadow: callers' requests shall not need new memory for each of them

    RequestStack inbox;
    std::vector<RequestStack*> homes;      // one an I/O thread
    std::atomic<bool> active{false};       // some model has a shadow
    std::atomic<bool> stopping{false}, dozing{false};
    std::atomic<int64_t> pressed_until_ns{0};  // callers wait, or are refused: until then shadows are shed
    std::atomic<bool>* draining = nullptr;
    const std::atomic<int32_t>* due = nullptr;  // versions that have callers' rows for an executor
    int wake_fd = -1;
    std::atomic<bool> started{false};
    pthread_t thread;

    std::mutex run_mutex;                  // the data plane tries it and does not wait; guards:
    OrtRunOptions* options = nullptr;      // of all runs
    int64_t run_ends_cpu_ns = 0;           // by the thread's own time; 0: there is no run
    bool passed = false;                   // the run was told to end

    bool try_lock_run() { return run_mutex.try_lock(); }
    void lock_run() { run_mutex.lock(); }
    void unlock_run() { run_mutex.unlock(); }
    // What the thread has had of the processors.
    int64_t cpu_ns() const {
        clockid_t clock;
        timespec now{};
        if (!started.load() || pthread_getcpuclockid(thread, &clock) || clock_gettime(clock, &now)) return 0;
        return int64_t{now.tv_sec} * 1000000000 + now.tv_nsec;
    }

    void send(InferRequest* request) {
        inbox.push(request);
        if (dozing.load() && dozing.exchange(false)) eventfd_write(wake_fd, 1);
    }
    void send_home(InferRequest* request) { homes[static_cast<size_t>(request->reply_to.io_thread)]->push(request); }
};

}  // namespace batchmill
