// What the HTTP/2 front end keeps of a connection and of a stream. One I/O thread owns both.
#pragma once
#include <nghttp2/nghttp2.h>

#include <deque>
#include <string>
#include <vector>

#include "front.hpp"
#include "grpc.hpp"

// Newer than the oldest library that is built against (1.61, and Debian's 1.52). Older ones have no such limit.
extern "C" __attribute__((weak)) void nghttp2_option_set_max_continuations(nghttp2_option* option, size_t frames);

namespace batchmill {

constexpr char kInferPath[] = "/inference.GRPCInferenceService/ModelInfer";
constexpr char kStreamInferPath[] = "/inference.GRPCInferenceService/ModelStreamInfer";

inline void set_max_continuations(nghttp2_option* option, size_t frames) {
  if (nghttp2_option_set_max_continuations) nghttp2_option_set_max_continuations(option, frames);
}

// Allocates from the pool, which outlives the session.
inline int new_session(nghttp2_session** session, const nghttp2_session_callbacks* callbacks, void* user, const nghttp2_option* option,
                       PiecePool* pool) {
    nghttp2_mem memory{
        pool,
        [](size_t bytes, void* pool) { return static_cast<PiecePool*>(pool)->take(bytes); },
        [](void* piece, void* pool) { static_cast<PiecePool*>(pool)->give(piece); },
        [](size_t count, size_t bytes, void* pool) { return static_cast<PiecePool*>(pool)->take_zeroed(count, bytes); },
        [](void* piece, size_t bytes, void* pool) { return static_cast<PiecePool*>(pool)->grow(piece, bytes); },
    };
    return nghttp2_session_server_new3(session, callbacks, user, option, &memory);
}

enum class StreamKind : uint8_t {
    kNew,          // headers not complete
    kInfer,        // gRPC ModelInfer
    kStreamInfer,  // gRPC ModelStreamInfer
    kNative,       // gRPC liveness and readiness
    kCold,         // gRPC, answered by Python
    kRest,         // HTTP infer
    kColdHttp,     // HTTP, answered by Python
    kAnswered,     // refused or answered early: what still comes is thrown away
};

struct Http2Connection;

struct Http2Stream {
    Http2Connection* connection = nullptr;
    int32_t id = 0;
    StreamKind kind = StreamKind::kNew;
    bool grpc = false;
    bool closed = false;          // nghttp2 knows it no more
    bool input_ended = false;
    bool started = false;         // response headers are submitted
    bool deferred = false;        // the data provider waits for resume
    bool waiting = false;         // `request` is on its way: it comes back by reply()
    Coding coding = Coding::kIdentity;    // grpc-encoding
    AcceptedCodings accepts;      // grpc-accept-encoding
    uint8_t prefix[5];
    uint8_t prefix_size = 0;
    uint32_t left = 0;            // bytes of the message that are still to come
    int32_t messages = 0;
    int32_t outstanding = 0;      // requests on their way
    int64_t header_bytes = 0;
    int64_t deadline_ns = 0;
    int64_t began_ns = 0;
    int64_t json_size = -1;       // REST: Inference-Header-Content-Length; -2: malformed
    int64_t grpc_timeout_ns = -1; // as sent, before it is known which of the two counts; -2: malformed
    int64_t timeout_ms = -1;      // REST: x-request-timeout-ms; -2: malformed
    size_t held = 0;              // received and not yet given back to the flow-control windows
    std::string path, method, content_type;
    HeaderNotes notes;
    HeaderList headers;

    InferRequest* request = nullptr;      // collects the body; or, unary, waits or is being sent
    std::deque<InferRequest*> pending;    // stream: in the order of the requests
    size_t sent = 0;                      // of the answer at hand

    ColdCall* cold = nullptr;
    Buffer message;                       // cold: collects one gRPC message, or the HTTP body
    int64_t charged_bytes = 0;            // of message, taken from the memory budget
    Buffer out;                           // cold: not yet sent
    HeaderList trailers;
    bool ended = false;                   // cold: the answer is complete
    bool failing = false;                 // gRPC stream: ends with `failure` after what is pending
    Status failure;

    Http2Stream* next = nullptr;          // all streams of the connection, or the free list
    Http2Stream* previous = nullptr;

    void reset() {
        id = 0;
        kind = StreamKind::kNew;
        grpc = closed = input_ended = started = deferred = waiting = ended = failing = false;
        failure.clear();
        coding = Coding::kIdentity;
        accepts = {};
        prefix_size = 0;
        left = 0;
        messages = outstanding = 0;
        header_bytes = deadline_ns = 0;
        json_size = grpc_timeout_ns = timeout_ms = -1;
        held = sent = 0;
        path.clear();
        method.clear();
        content_type.clear();
        notes.reset();
        headers.clear();
        request = nullptr;
        pending.clear();
        cold = nullptr;
        message.clear();
        charged_bytes = 0;
        out.clear();
        trailers.clear();
        next = previous = nullptr;
    }
};

struct Http2Connection {
    void* owner = nullptr;        // the reactor's socket
    Sink* sink = nullptr;
    nghttp2_session* session = nullptr;
    std::string peer;
    Buffer out;                   // to be sent, from out_sent on
    size_t out_sent = 0;
    Http2Stream* streams = nullptr;
    Http2Stream* free_streams = nullptr;
    int32_t open_streams = 0;
    int32_t outstanding = 0;      // requests and cold answers that still point here
    bool abandoned = false;
    bool draining = false;
    bool metrics_only = false;
    int64_t looked_ns = 0;        // when bodies that come too slowly were last looked for
    ToldStatus told;

    ~Http2Connection() {
        if (session) nghttp2_session_del(session);
        for (Http2Stream* list : {streams, free_streams})
            for (Http2Stream* next; list; list = next) next = list->next, delete list;
    }
};

}  // namespace batchmill
