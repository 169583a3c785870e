// A request on its way through the server: what was asked, who waits for the answer, what happened when.
#pragma once
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "buffer.hpp"
#include "notes.hpp"
#include "tensor.hpp"

namespace batchmill {

// gRPC's status codes; status.pyx maps them to HTTP.
enum Code : int32_t {
    kOk = 0, kCancelled = 1, kUnknown = 2, kInvalidArgument = 3, kDeadlineExceeded = 4, kNotFound = 5, kAlreadyExists = 6,
    kPermissionDenied = 7, kResourceExhausted = 8, kFailedPrecondition = 9, kAborted = 10, kOutOfRange = 11, kUnimplemented = 12,
    kInternal = 13, kUnavailable = 14, kDataLoss = 15, kUnauthenticated = 16,
};

// How the request came, and so how its answer is written.
enum class Encoding : uint8_t {
    kProto,  // ModelInferRequest; raw or typed contents
    kJson,   // REST: JSON, or JSON followed by binary tensors
};

// Why a request is refused or failed. http_status 0: the code's usual one. reason: a static string such as "QUEUE_FULL".
struct Status {
    Code code = kOk;
    int32_t http_status = 0;
    const char* reason = "";
    std::string message;
    int64_t retry_ms = 0;                  // when to come back; 0: the reason's usual time

    bool ok() const { return code == kOk; }
    void set(Code c, const char* why, std::string text) {
        code = c;
        http_status = 0;
        reason = why;
        message = std::move(text);
        retry_ms = 0;
    }
    void clear() {
        code = kOk;
        http_status = 0;
        reason = "";
        message.clear();
        retry_ms = 0;
    }
};

// What an executor does with a request beside running it, before it goes back to its I/O thread.
enum class Errand : uint8_t { kNone, kDecode, kCompress };

struct RequestedOutput {
    std::string_view name;
    int8_t binary = -1;          // REST binary_data; -1: the request's default
    int64_t classification = 0;  // top N as BYTES; 0: the tensor itself
};

// What is told of an answer beside its tensors, both as a parameter of it and as its header or trailer.
struct Remark {
    const char* parameter = "";
    const char* header = "";
    std::string_view value;      // printable ASCII without quotes and backslashes
};
constexpr int kRemarksMost = 2;
constexpr size_t kTokenChars = 48;  // of a feedback token

struct Version;    // router.hpp
struct Shadow;     // shadow.hpp
struct InferRequest;

// Of a request that candidates shall answer, too, once its caller has its answer: who they are, and what the answer was.
struct Mirror {
    static constexpr int kShadows = 4;     // candidates a model may have

    Shadow* shadows[kShadows] = {};        // each with a reference
    int count = 0, at = 0;                 // those before `at` are done
    bool kept = false;                     // outputs are those of an answer
    std::vector<TensorView> outputs;       // their bytes are in the answer where they stand there raw, else in bytes; their names there
    Buffer bytes;
    Version* answered_by = nullptr;        // under lease while not null: of some, so that its run times can be measured beside the candidate's
    int64_t held_bytes = 0;                // of the request, as each shadow counts them while it waits there
    int64_t since_ns = 0;                  // when it was answered

    void clear() {
        count = at = 0;
        kept = false;
        outputs.clear();
        bytes.clear();
        held_bytes = 0;
    }
};

// Who waits for the answer. The front end that made the request; called on the I/O thread it belongs to.
struct ReplyTo {
    void* stream = nullptr;      // http2's or http1's exchange; stays valid until the request is returned to it
    void* connection = nullptr;
    void* socket = nullptr;      // the I/O thread's, set by it
    int32_t io_thread = 0;
};

struct InferRequest {
    // What was asked. Views point into body or arena.
    Encoding encoding = Encoding::kProto;
    std::string_view model_name, model_version, label, id, route_key;
    std::vector<TensorView> inputs;
    std::vector<RequestedOutput> outputs;  // empty: all
    std::vector<std::string_view> parameters;  // as received, for the answer: JSON's object, or the entries of protobuf's map
    std::vector<std::pair<std::string_view, std::string_view>> texts_given;  // those of its parameters that are texts and mean nothing here
    bool typed_contents = false;           // gRPC: parameter binary_data_output is false: the answer in InferTensorContents
    bool binary_output = false;            // REST: request parameter binary_data_output
    bool stream_reply = false;             // gRPC: the answer is wrapped in a ModelStreamInferResponse
    bool done = false;                     // answered; waits for the answers before it (streams, pipelines)
    bool raw_binary = false;               // REST: Inference-Header-Content-Length 0; shape is settled from the signature
    Errand errand = Errand::kNone;         // kCompress stays: it is done once
    Coding coding = Coding::kIdentity;     // of the body, until it is decoded
    Coding answer_coding = Coding::kIdentity;  // what its caller can read; once it is answered: what it is
    uint64_t priority = 0;
    int64_t timeout_us = 0;                // v2 parameter: until its run starts; 0: none

    Buffer body;    // as received
    Buffer arena;   // what had to be decoded: typed contents, JSON numbers
    std::deque<std::string> texts;  // JSON strings that had escapes
    std::string path_model, path_version, path_label;  // REST: from the path; model_name and model_version point here
    const HeaderNotes* notes = nullptr;    // the front end's; route_key points there unless a parameter names another
    int64_t max_response_bytes = INT64_MAX;

    // Where it goes.
    Version* version = nullptr;            // under lease while not null
    bool routed = false;                   // its version was chosen by the model's route: it named none
    uint32_t generation = 0;               // of that route
    int32_t fallbacks_tried = 0;           // of that route
    std::string fallback;                  // who answers in the place of the version that was chosen; empty: nobody does
    int64_t rows = 1;                      // along axis 0 when the version is batched
    int64_t length = 0;                    // of a version that pads: along the padded axes, whose dims in inputs say bucket
    int64_t bucket = 0;                    // what that length counts as: equal ones share runs
    int64_t answer_by_ns = 0;              // the caller's own deadline; deadline_ns may be earlier, for the queue
    int64_t deadline_ns = 0;               // monotonic; 0: none
    int64_t objective_ns = 0;              // when its version's objective wants it answered; monotonic; 0: none
    int64_t behind_ns = 0;                 // how long it had waited in its socket before it was read
    int64_t predicted_wait_ns = 0;         // as the predictor has it, without what waits have been longer of late
    std::atomic<bool> cancelled{false};    // set by the front end; read before the run
    InferRequest* next = nullptr;          // intrusive: queue, batch, completion list, free list

    // Of one with more rows than a batch may have: parts.pyx.
    InferRequest* whole = nullptr;         // of a part: whose
    InferRequest* parts = nullptr;         // of a whole: its parts, owned, in the order of their rows, linked by next_part
    InferRequest* next_part = nullptr;
    std::atomic<int64_t> parts_left{0};    // of a whole: parts that have neither run nor been dropped
    std::atomic<int64_t> parts_bytes{0};   // of a whole: what its parts hold of its answer
    std::atomic<bool> broken{false};       // of a whole: a part of it has failed

    bool is_cancelled() const { return cancelled.load() || (whole && (whole->cancelled.load() || whole->broken.load())); }
    // On whichever thread has the whole request in hand: no part is in a queue or runs any more.
    void drop_parts() {
        while (parts) {
            InferRequest* one = parts;
            parts = one->next_part;
            delete one;
        }
    }

    void forget_parts() {
        if (!parts) return;
        drop_parts();
        parts_bytes.store(0, std::memory_order_relaxed);
        broken.store(false, std::memory_order_relaxed);
    }

    // What came of it.
    Status status;
    Buffer response;                       // encoded answer: gRPC frame with its 5-byte prefix, or HTTP body
    size_t response_start = 0;             // where it begins in response: a gRPC prefix is written last, right-aligned
    int64_t json_size = -1;                // REST: bytes of JSON before the binary tensors; -1: all is JSON
    StageTimes times;
    Remark remarks[kRemarksMost];
    int32_t remark_count = 0;
    char token[kTokenChars];               // that the remark on it points to
    ReplyTo reply_to;
    int64_t charged_bytes = 0;             // taken from the memory budget
    std::unique_ptr<Mirror> mirror;        // made with the first; stays with the request from use to use

    bool is_mirrored() const { return mirror && mirror->count; }
    // The shadow has a reference for it.
    void mirror_to(Shadow* shadow) {
        if (!mirror) mirror = std::make_unique<Mirror>();
        mirror->shadows[mirror->count++] = shadow;
    }
    void remark(const char* parameter, const char* header, std::string_view value) { remarks[remark_count++] = {parameter, header, value}; }
    // What came of it with a version that has failed, or was not to be asked.
    void forget_run() {
        drop_parts();
        parts_bytes.store(0, std::memory_order_relaxed);
        broken.store(false, std::memory_order_relaxed);
        rows = 1;
        length = bucket = 0;
        objective_ns = predicted_wait_ns = 0;
        next = nullptr;
        status.clear();
        response.clear();
        response_start = 0;
        json_size = -1;
        remark_count = 0;
        times.queued = times.started = times.gathered = times.computed = times.encoded = 0;
    }
    void take_notes(const HeaderNotes& headers) {
        notes = &headers;
        route_key = headers.route_key;
    }

    // The caches have forgotten one that a shadow has had. This asks for it, and then for what it holds, before they are needed.
    void fetch() const {
        for (size_t at = 0; at < sizeof *this; at += 64) __builtin_prefetch(reinterpret_cast<const char*>(this) + at, 1);
    }
    void fetch_held() const {
        constexpr size_t kFirst = 256;
        for (const Buffer* one : {&body, &arena, &response})
            for (size_t at = 0; at < kFirst && at < one->capacity; at += 64) __builtin_prefetch(one->data + at, 1);
        for (size_t at = 0; at < sizeof(TensorView); at += 64) __builtin_prefetch(reinterpret_cast<const char*>(inputs.data()) + at, 1);
        if (mirror)
            for (size_t at = 0; at < sizeof(Mirror); at += 64) __builtin_prefetch(reinterpret_cast<const char*>(mirror.get()) + at, 1);
    }

    // A request with a thousand inputs must not pin the memory for them in the pool.
    template <class Item>
    static void clear(std::vector<Item>& items) {
        constexpr size_t kKeep = 64;
        if (items.capacity() > kKeep) std::vector<Item>().swap(items);
        items.clear();
    }

    void reset() {
        model_name = model_version = label = id = route_key = {};
        clear(inputs);
        clear(outputs);
        clear(parameters);
        clear(texts_given);
        typed_contents = binary_output = raw_binary = stream_reply = done = false;
        errand = Errand::kNone;
        coding = answer_coding = Coding::kIdentity;
        priority = 0;
        timeout_us = 0;
        body.clear();
        arena.clear();
        if (!texts.empty()) texts.clear();
        path_model.clear();
        path_version.clear();
        path_label.clear();
        notes = nullptr;
        version = nullptr;
        routed = false;
        generation = 0;
        fallbacks_tried = 0;
        fallback.clear();
        rows = 1;
        length = bucket = 0;
        answer_by_ns = deadline_ns = objective_ns = behind_ns = predicted_wait_ns = 0;
        cancelled.store(false, std::memory_order_relaxed);
        forget_parts();
        next = nullptr;
        status.clear();
        response.clear();
        response_start = 0;
        json_size = -1;
        remark_count = 0;
        times = {};
        charged_bytes = 0;
        if (is_mirrored()) mirror->clear();
    }
};

}  // namespace batchmill
