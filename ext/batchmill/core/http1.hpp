// What the HTTP/1.1 front end keeps of a connection and of a request on it. One I/O thread owns both.
#pragma once
#include <deque>
#include <string>
#include <string_view>

#include "front.hpp"
#include "rest.hpp"

namespace batchmill {

enum class Http1State : uint8_t { kRequestLine, kHeaders, kBody, kChunkSize, kChunkData, kChunkEnd, kTrailers, kFailed };

// What the head of a request says.
struct Http1Head {
    std::string method, target;
    bool http10 = false, chunked = false, expects_continue = false, keep_alive = true, encoded = false;
    int hosts = 0, lines = 0;
    int64_t bytes = 0;                 // of the whole head so far
    int64_t content_length = -1;       // -1: none given
    int64_t json_size = -1;            // Inference-Header-Content-Length; -2: malformed
    int64_t timeout_ms = -1;
    HeaderList headers;                // only for calls that Python answers

    void reset() {
        method.clear();
        target.clear();
        http10 = chunked = expects_continue = encoded = false;
        keep_alive = true;
        hosts = lines = 0;
        bytes = 0;
        content_length = json_size = timeout_ms = -1;
        headers.clear();
    }
};

// One request and its answer. Answers leave in the order of the requests.
struct Http1Exchange {
    RestRoute route;
    InferRequest* request = nullptr;   // collects the body, then is on its way
    ColdCall* cold = nullptr;
    bool on_its_way = false;           // an InferRequest that will come back by reply()
    bool done = false;                 // the answer is complete
    bool keep_alive = true, head_only = false, http10 = false;
    bool chunked = false;              // the answer is
    bool started = false;
    bool closed = false;               // the caller has gone
    Buffer out;                        // what may not leave yet
    Http1Exchange* next = nullptr;     // free list

    void reset() {
        route.kind = RestKind::kCold;
        route.model.clear();
        route.version.clear();
        route.label.clear();
        request = nullptr;
        cold = nullptr;
        on_its_way = done = head_only = http10 = chunked = started = closed = false;
        keep_alive = true;
        out.clear();
        next = nullptr;
    }
};

struct Http1Connection {
    Sink* sink = nullptr;
    std::string peer;
    Http1State state = Http1State::kRequestLine;
    Http1Head head;
    Buffer in;                         // received and not yet understood
    Buffer cold_body;
    int64_t body_left = 0;             // of the body, or of the chunk
    int64_t body_bytes = 0;
    Http1Exchange* current = nullptr;  // whose body is being read
    std::deque<Http1Exchange*> queue;  // unanswered, in order
    Http1Exchange* free_exchanges = nullptr;
    Buffer out;
    size_t out_sent = 0;
    int32_t outstanding = 0;           // requests on their way
    bool last = false;                 // nothing after the queue: Connection: close, or an error
    bool abandoned = false;
    int64_t waits_since_ns = 0;        // when the head or the body that is awaited began; or when the connection fell idle

    ~Http1Connection() {
        for (Http1Exchange* one : queue) delete one;
        for (Http1Exchange* next; free_exchanges; free_exchanges = next) next = free_exchanges->next, delete free_exchanges;
    }
};

}  // namespace batchmill
