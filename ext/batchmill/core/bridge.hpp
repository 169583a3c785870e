// Cold calls on their way up to Python, and their answers on the way down.
#pragma once
#include <sys/eventfd.h>

#include <deque>
#include <mutex>

#include "front.hpp"

namespace batchmill {

enum ColdEventKind : int { kOpen = 0, kMessage = 1, kHalfClose = 2, kCancel = 3, kCompressed = 4, kInferred = 5 };  // kCompressed: a message

struct ColdEvent {
    ColdCall* call = nullptr;   // owns a reference
    int kind = kOpen;
    std::string payload;
    int32_t status = 0;         // kInferred: HTTP status; payload is the body, or the text of the error
    int64_t json_size = -1;     // kInferred: bytes of JSON before the binary tensors
};

inline void drop(ColdCall* call) {
    if (call->refs.fetch_sub(1) == 1) delete call;
}

// Up: bounded in calls that are open and bytes that wait. An opened call always gets its later events.
struct ColdQueue {
    std::mutex mutex;
    std::deque<ColdEvent> events;
    int64_t open_calls = 0, bytes = 0, max_calls = 1024, max_bytes = 64 << 20;
    int wake_fd = -1;

    bool push(ColdCall* call, int kind, std::string payload, int32_t status = 0, int64_t json_size = -1) {
        bool wake;
        {
            std::lock_guard<std::mutex> lock(mutex);
            int64_t size = static_cast<int64_t>(payload.size() + (kind == kOpen ? call->body.size() : 0));
            if ((kind == kOpen && open_calls >= max_calls) || (size && bytes + size > max_bytes)) return false;
            if (kind == kOpen) ++open_calls;
            bytes += size;
            call->refs.fetch_add(1);
            wake = events.empty();
            events.push_back({call, kind, std::move(payload), status, json_size});
        }
        if (wake) eventfd_write(wake_fd, 1);
        return true;
    }
    bool pop(ColdEvent* event) {
        std::lock_guard<std::mutex> lock(mutex);
        if (events.empty()) return false;
        *event = std::move(events.front());
        events.pop_front();
        bytes -= static_cast<int64_t>(event->payload.size() + (event->kind == kOpen ? event->call->body.size() : 0));
        return true;
    }
    void ended() {
        std::lock_guard<std::mutex> lock(mutex);
        --open_calls;
    }
};

// Down: pieces of answers for the calls of one I/O thread.
struct ColdReplies {
    std::mutex mutex;
    std::vector<ColdReply*> parts;
    int wake_fd = -1;           // the I/O thread's

    void push(ColdReply* part) {
        bool wake;
        {
            std::lock_guard<std::mutex> lock(mutex);
            wake = parts.empty();
            parts.push_back(part);
        }
        if (wake) eventfd_write(wake_fd, 1);
    }
    void take(std::vector<ColdReply*>* all) {
        std::lock_guard<std::mutex> lock(mutex);
        all->swap(parts);
    }
};

}  // namespace batchmill
