// What both halves of the client share: the connection, and how a call tells what is wrong.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "inference.grpc.pb.h"

// One connection, which all stubs share; it may be used by any number of threads.
struct Client {
    std::shared_ptr<grpc::Channel> channel;
    std::unique_ptr<inference::GRPCInferenceService::Stub> stub;
};

struct Call {
    std::string name;
    void (*make)(Client&);
    std::string model;  // what the call needs beside "digits"
};

extern const std::vector<Call> inference_calls;

// The context of one call; it is not used again. Every call has a deadline.
struct Context : grpc::ClientContext {
    explicit Context(std::chrono::milliseconds time = std::chrono::seconds(10)) { set_deadline(std::chrono::system_clock::now() + time); }
};

inline void want(bool condition, const std::string& got) {
    if (!condition) throw std::runtime_error("got " + got);
}

inline void want_ok(const grpc::Status& status) {
    want(status.ok(), std::to_string(status.error_code()) + " " + status.error_message());
}

// Holds a status against its code and a part of its text.
inline void want_error(const grpc::Status& status, grpc::StatusCode code, const std::string& text) {
    want(status.error_code() == code && status.error_message().find(text) != std::string::npos,
         std::to_string(status.error_code()) + " " + status.error_message());
}
