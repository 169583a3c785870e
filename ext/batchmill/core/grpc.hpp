// What gRPC's trailers say of a status.
#pragma once
#include <string>

#include "message.hpp"

namespace batchmill {

// A status as it was told last: under overload the same is told again and again, and to write it costs more than to read a request.
struct ToldStatus {
    Status status;
    std::string code, message, details, retry;   // of the trailers
};

}  // namespace batchmill
