// What the HTTP/1.1 front end keeps of a connection and of a request on it. One I/O thread owns both.
#pragma once
#include <deque>
#include <string>
#include <string_view>

#include "front.hpp"
#include "rest.hpp"

namespace batchmill {

enum class Http1State : uint8_t { kRequestLine, kHeaders, kBody, kChunkSize, kChunkData, kChunkEnd, kTrailers, kFailed };

// Which bytes may stand where, by value.
struct ByteTable {
    bool token[256] = {};              // RFC 9110, section 5.6.2

    constexpr ByteTable() {
        for (int byte = 0; byte < 256; ++byte)
            token[byte] = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') || byte == '!' ||
                          (byte >= '#' && byte <= '\'') || byte == '*' || byte == '+' || byte == '-' || byte == '.' || byte == '^' ||
                          byte == '_' || byte == '`' || byte == '|' || byte == '~';
    }
};
inline constexpr ByteTable kBytes;

// What the head of a request says.
struct Http1Head {
    std::string method, target;
    bool http10 = false, chunked = false, expects_continue = false, keep_alive = true, closes = false;
    int hosts = 0, lines = 0;
    int64_t bytes = 0;                 // of the whole head so far
    int64_t content_length = -1;       // -1: none given
    int64_t json_size = -1;            // Inference-Header-Content-Length; -2: malformed
    int64_t timeout_ms = -1;           // x-request-timeout-ms; -2: malformed
    const WatchedHeaders* watched = nullptr;      // null: no rule asks for any
    HeaderNotes notes;
    HeaderList headers;                // only for calls that Python answers

    void reset() {
        method.clear();
        target.clear();
        http10 = chunked = expects_continue = closes = false;
        keep_alive = true;
        hosts = lines = 0;
        bytes = 0;
        content_length = json_size = timeout_ms = -1;
        notes.reset();
        headers.clear();
    }
};

// How far an unfinished line has been looked at: each byte is looked at once, however slowly the line arrives.
struct Http1Scan {
    size_t seen = 0;                   // bytes
    uint8_t part = 0;                  // where in the line's grammar; see http1_parser
};

// One request and its answer. Answers leave in the order of the requests.
struct Http1Exchange {
    RestRoute route;
    InferRequest* request = nullptr;   // collects the body, then is on its way
    ColdCall* cold = nullptr;
    HeaderNotes notes;
    bool on_its_way = false;           // an InferRequest that will come back by reply()
    bool done = false;                 // the answer is complete
    bool keep_alive = true, head_only = false, http10 = false;
    bool chunked = false;              // the answer is
    bool bodyless = false;             // the answer may not have a body: HEAD, 204, 304
    bool started = false;
    int64_t answer_left = -1;          // bytes that a declared Content-Length still promises; -1: none declared
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
        notes.reset();
        on_its_way = done = head_only = http10 = chunked = bodyless = started = closed = false;
        keep_alive = true;
        answer_left = -1;
        out.clear();
        next = nullptr;
    }
};

struct Http1Connection {
    Sink* sink = nullptr;
    std::string peer;
    Http1State state = Http1State::kRequestLine;
    Http1Head head;
    RestRoute route;                   // of the request whose head is being read
    Http1Scan scan;                    // of the line that has not ended yet
    Buffer in;                         // received and not yet understood, from in_start on
    size_t in_start = 0;
    Buffer cold_body;                  // of a call that Python will answer
    int64_t cold_charged = 0;          // taken from the memory budget for it
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
    bool metrics_only = false;
    bool input_ended = false;          // the caller sends no more, or is not listened to any longer
    int64_t waits_since_ns = 0;        // when the head or the body that is awaited began; or when the connection fell idle
    int64_t stalled_since_ns = 0;      // when the caller last read something of what is ready for it; 0: nothing is

    ~Http1Connection() {
        for (Http1Exchange* one : queue) delete one;
        for (Http1Exchange* next; free_exchanges; free_exchanges = next) next = free_exchanges->next, delete free_exchanges;
    }
};

}  // namespace batchmill
