// Where a REST path leads.
#pragma once
#include <cstdint>
#include <string>

namespace batchmill {

enum class RestKind : uint8_t { kInfer, kLive, kReady, kModelReady, kCold, kBadPath, kMethodNotAllowed, kNowhere };

struct RestRoute {
    RestKind kind = RestKind::kCold;
    std::string model, version, label;   // percent-decoded
};

}  // namespace batchmill
