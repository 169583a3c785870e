// Content codings: which of them a header names.
#pragma once
#include <cstdint>
#include <string_view>

namespace batchmill {

// RFC 9110, section 8.4.1. deflate is the zlib format (RFC 1950), not bare deflate.
enum class Coding : uint8_t { kIdentity, kGzip, kDeflate, kUnknown };

inline bool equals_ignoring_case(std::string_view given, std::string_view lower) {
    if (given.size() != lower.size()) return false;
    for (size_t at = 0; at < given.size(); ++at)
        if ((given[at] >= 'A' && given[at] <= 'Z' ? given[at] + 32 : given[at]) != lower[at]) return false;
    return true;
}

inline Coding coding_of(std::string_view name) {
    if (equals_ignoring_case(name, "identity")) return Coding::kIdentity;
    if (equals_ignoring_case(name, "gzip") || equals_ignoring_case(name, "x-gzip")) return Coding::kGzip;
    return equals_ignoring_case(name, "deflate") ? Coding::kDeflate : Coding::kUnknown;
}

inline const char* name_of(Coding coding) {
    return coding == Coding::kGzip ? "gzip" : coding == Coding::kDeflate ? "deflate" : "identity";
}

inline std::string_view without_blanks(std::string_view text) {
    while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
    while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
    return text;
}

// The codings that the other side can read: Accept-Encoding or grpc-accept-encoding, of one or more lines.
struct AcceptedCodings {
    bool gzip = false, deflate = false;

    void take(std::string_view list) {
        while (!list.empty()) {
            std::string_view item = list.substr(0, list.find(','));
            list.remove_prefix(item.size() < list.size() ? item.size() + 1 : item.size());
            std::string_view name = without_blanks(item.substr(0, item.find(';')));
            if (is_refused(item)) continue;
            gzip = gzip || name == "*" || coding_of(name) == Coding::kGzip;
            deflate = deflate || coding_of(name) == Coding::kDeflate;
        }
    }
    bool has(Coding coding) const { return coding == Coding::kGzip ? gzip : coding == Coding::kDeflate && deflate; }
    Coding best() const { return gzip ? Coding::kGzip : deflate ? Coding::kDeflate : Coding::kIdentity; }

  private:
    // A weight of zero: "not acceptable".
    static bool is_refused(std::string_view item) {
        size_t at = item.find(';');
        if (at == std::string_view::npos) return false;
        std::string_view weight = without_blanks(item.substr(at + 1));
        return weight.size() > 2 && (weight[0] | 32) == 'q' && weight[1] == '=' && weight.find_first_not_of("0.", 2) == std::string_view::npos;
    }
};

}  // namespace batchmill
