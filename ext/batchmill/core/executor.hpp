// The shared pool that runs batches, and the way answers take back to the I/O threads.
#pragma once
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <vector>

#include "ort.hpp"
#include "turns.hpp"

namespace batchmill {

// Answers on their way to one I/O thread: one wake-up a batch.
struct CompletionQueue {
    std::mutex mutex;
    InferRequest* head = nullptr;
    int wake_fd = -1;

    void push(InferRequest* first, InferRequest* last) {
        bool wake;
        {
            std::lock_guard<std::mutex> lock(mutex);
            wake = !head;
            last->next = head;
            head = first;
        }
        if (wake) eventfd_write(wake_fd, 1);
    }
    InferRequest* take() {
        std::lock_guard<std::mutex> lock(mutex);
        InferRequest* all = head;
        head = nullptr;
        return all;
    }
};

// The time limit of the run that an executor has in hand; a watch on another thread ends the run.
struct RunLimit {
    std::mutex mutex;
    OrtRunOptions* options = nullptr;      // made with the first run
    int64_t ends_ns = 0;                   // 0: no run, or none with a limit
    bool passed = false;                   // the watch has told the run to end
    bool shrinks = false;                  // the arena does, after it

    void lock() { mutex.lock(); }
    void unlock() { mutex.unlock(); }
};

// What one thread needs to run batches; kept from run to run.
struct Scratch {
    std::vector<Buffer> gathered;          // one an input
    std::vector<Buffer> cut;               // one an output: of the request that is being answered
    int64_t length = 0;                    // of a version that pads: of the run's rows along the padded axes
    bool uneven = false;                   // some of the requests are shorter
    size_t padding_bytes = 0;              // that they were filled up with
    std::vector<TensorView> inputs, sliced;
    std::vector<int32_t> indices;           // 0, 1, 2 ...
    std::vector<size_t> cursors;           // BYTES outputs: how far the rows before this one reach
    OutputSet outputs;
    RunLimit limit;
    int thread = 0;                        // slot in Version::stats
    bool is_executor = false;              // false: an I/O thread's, which must not stay long

    explicit Scratch(int slot) : thread(slot) { indices.reserve(4096); }  // never moves while a run reads it
};

// Requests whose batch failed on an I/O thread.
struct FailedBatch {
    Version* version;
    InferRequest* requests;
};

struct ExecutorPool {
    std::mutex mutex;
    std::condition_variable work;
    Turns turns;
    std::deque<InferRequest*> errands;     // bodies to parse and answers to compress that would hold up an I/O thread
    std::deque<FailedBatch> failed;
    std::vector<Scratch*> scratches;       // the executors'
    std::vector<pthread_t> threads;
    std::vector<CompletionQueue*> completions;  // one an I/O thread
    Relaxed<int> idle{0};                  // executors that wait; changed under the mutex
    bool stopping = false;
    size_t max_body_bytes = 0;             // of a body that was compressed
    MemoryBudget* budget = nullptr;

    bool is_busy() const { return idle.load() == 0; }
    void lock() { mutex.lock(); }
    void unlock() { mutex.unlock(); }
    void notify() { work.notify_one(); }
    void notify_all() { work.notify_all(); }
    // With the mutex held. until_ns 0: until notified. Monotonic clock.
    void wait(int64_t until_ns) {
        std::unique_lock<std::mutex> held(mutex, std::adopt_lock);
        idle.store(idle.load() + 1);
        if (until_ns) {
            work.wait_until(held, std::chrono::steady_clock::time_point(std::chrono::nanoseconds(until_ns)));
        } else {
            work.wait(held);
        }
        idle.store(idle.load() - 1);
        held.release();
    }
};

}  // namespace batchmill
