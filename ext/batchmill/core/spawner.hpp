// Makes threads for those who could only make slow ones: a thread inherits the priority of its maker, and cannot raise it.
#pragma once
#include <pthread.h>

#include <condition_variable>
#include <mutex>

#include "threads.hpp"

namespace batchmill {

// One thread, which waits for orders from any other one; as long as the process.
class Spawner {
  public:
    // Made threads have the priority of the first caller. False: there is no room for another thread.
    bool start() {
        std::lock_guard<std::mutex> held(mutex_);
        return started_ || (started_ = start_thread(&thread_, work, this, "spawner", -1));
    }
    // One order at a time. False: not started, or there is no room for another thread.
    bool make(pthread_t* thread, void* (*body)(void*), void* argument, const char* name) {
        std::lock_guard<std::mutex> turn(turn_);
        std::unique_lock<std::mutex> held(mutex_);
        if (!started_) return false;
        Order order{thread, body, argument, name};
        order_ = &order;
        change_.notify_all();
        change_.wait(held, [&] { return order.done; });
        return order.made;
    }

  private:
    struct Order {
        pthread_t* thread;
        void* (*body)(void*);
        void* argument;
        const char* name;
        bool done = false, made = false;
    };

    static void* work(void* self) {
        static_cast<Spawner*>(self)->serve();
        return nullptr;
    }
    void serve() {
        std::unique_lock<std::mutex> held(mutex_);
        for (;;) {
            change_.wait(held, [&] { return order_ != nullptr; });
            order_->made = start_thread(order_->thread, order_->body, order_->argument, order_->name, -1);
            order_->done = true;
            order_ = nullptr;
            change_.notify_all();
        }
    }
    std::mutex turn_, mutex_;
    std::condition_variable change_;
    pthread_t thread_;
    Order* order_ = nullptr;
    bool started_ = false;
};

// The process's. Never destroyed: its thread still waits when others end.
inline Spawner& spawner() {
    static Spawner* one = new Spawner();
    return *one;
}

// For ONNX Runtime, which names neither: work(argument) on a thread of the spawner's; null: there is none.
struct SpawnedThread {
    pthread_t thread;
    void (*work)(void*);
    void* argument;
};

inline void* spawn(void*, void (*work)(void*), void* argument) noexcept {
    auto* made = new SpawnedThread{{}, work, argument};
    auto run = [](void* self) -> void* {
        static_cast<SpawnedThread*>(self)->work(static_cast<SpawnedThread*>(self)->argument);
        return nullptr;
    };
    if (spawner().make(&made->thread, run, made, "session")) return made;
    delete made;
    return nullptr;
}

inline void join_spawned(void* thread) noexcept {
    pthread_join(static_cast<SpawnedThread*>(thread)->thread, nullptr);
    delete static_cast<SpawnedThread*>(thread);
}

}  // namespace batchmill
