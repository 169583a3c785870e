// What a front end (http1, http2) and the I/O thread that drives it say to each other. Everything here happens on that one thread.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "message.hpp"
#include "piece_pool.hpp"

namespace batchmill {

struct Limits {
    int64_t max_body_bytes = 64 << 20;
    int64_t max_header_bytes = 32 << 10;
    int64_t max_response_bytes = 256 << 20;
    int64_t max_streams = 1024;         // open at once on one HTTP/2 connection; also HTTP/1.1 requests pipelined and unanswered / 16
    int64_t max_resets = 10000;         // burst of RST_STREAM a connection may send ...
    int64_t max_resets_per_s = 1000;    // ... and its refill
    int64_t header_timeout_ms = 10000;
    int64_t idle_timeout_ms = 120000;   // HTTP/1.1
    int64_t min_body_rate = 1024;       // bytes/s, judged after 10 s
    int32_t busy_status = 429;
};

using HeaderList = std::vector<std::pair<std::string, std::string>>;

// A call that Python answers. Two owners: the front end and the bridge; the last one to drop it deletes it.
struct ColdCall {
    std::atomic<int32_t> refs{1};
    bool grpc = false;
    std::string method, target, peer;   // target: path and query as sent; gRPC: /package.Service/Method
    HeaderList headers;                 // names in lower case
    std::string body;                   // HTTP: whole before open(); gRPC: unused, messages follow one by one
    int64_t deadline_ns = 0;
    std::atomic<bool> cancelled{false};
    std::atomic<int64_t> pending{0};    // bytes of the answer that Python has written and the connection has not taken
    ReplyTo reply_to;                   // cleared by the front end when the caller has gone

    // The I/O thread alone takes.
    void took(int64_t bytes) { pending.fetch_sub(std::min(bytes, pending.load())); }
};

enum class ColdReplyKind : uint8_t { kHeaders, kData, kEnd, kInfer };

// One piece of Python's answer, carried down to the I/O thread; or an inference that Python wants for its call.
struct ColdReply {
    ColdCall* call = nullptr;
    ColdReplyKind kind = ColdReplyKind::kEnd;
    int32_t status = 200;               // kHeaders: HTTP status
    HeaderList headers;                 // kHeaders: headers; kEnd: trailers (gRPC)
    std::string data;                   // kData: HTTP body part, or one gRPC message without its prefix; kInfer: a REST body
    std::string model, version, label;  // kInfer: as in a path
    int64_t json_size = -1;             // kInfer: Inference-Header-Content-Length; -1: all is JSON
    int64_t deadline_ns = 0;            // kInfer: monotonic; 0: none
};

// What a front end may ask of the thread that drives it. infer() never answers before it returns.
struct Sink {
    void* self = nullptr;
    InferRequest* (*take)(void* self) = nullptr;                       // a clean request
    void (*recycle)(void* self, InferRequest* request) = nullptr;      // back to the pool, once it was answered or never sent
    void (*infer)(void* self, InferRequest* request) = nullptr;        // body is whole: decode, route, check, queue; comes back by reply()
    bool (*cold_open)(void* self, ColdCall* call) = nullptr;           // false: queue full; takes a reference of its own
    bool (*cold_message)(void* self, ColdCall* call, const uint8_t* data, size_t size, bool compressed) = nullptr;  // gRPC: one message
    void (*cold_end)(void* self, ColdCall* call) = nullptr;            // gRPC: the client has half-closed
    void (*cold_cancel)(void* self, ColdCall* call) = nullptr;         // the caller has gone; drops the front end's reference
    int (*ready)(void* self, std::string_view model, std::string_view version) = nullptr;  // 1 yes, 0 not yet, -1 unknown; no model: the server
    const Limits* limits = nullptr;
    MemoryBudget* budget = nullptr;
    const std::atomic<bool>* draining = nullptr;                       // lame duck: HTTP/1.1 answers carry Connection: close
    int64_t now_ns = 0;                                                // monotonic, taken once a turn of the loop
    int64_t behind_ns = 0;                                             // how long what is read now has waited in its socket
    const WatchedHeaders* watched = nullptr;                           // null: no rule asks for any
    int32_t io_thread = 0;
    PiecePool pieces;                                                  // of what its HTTP/2 sessions allocate; outlives them
};

}  // namespace batchmill
