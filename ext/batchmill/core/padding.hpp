// What the owner of a version says of rows of different lengths: what is filled up so that they can share a run, and to which lengths.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

namespace batchmill {

// Axis 0 is the batch's: of a padded axis it says that there is none.
struct PaddedInput {
    int32_t axis = 0;
    uint8_t value[8] = {};  // one element, raw, as many bytes of it as the datatype has
};

// Immutable.
struct Padding {
    static constexpr int64_t kLongest = int64_t{1} << 40;  // of a tensor without elements; the next power of two must exist

    std::vector<PaddedInput> inputs;      // one an input of the signature
    std::vector<int32_t> output_axes;     // one an output: along it, an answer is cut to its request's own length; 0: it is not
    std::vector<int64_t> edges;           // ascending; none: powers of two, and a run is as long as its longest row

    // Lengths of one bucket share runs. It is named by the longest of them; a length of 0 or above the last edge has one of its own.
    int64_t bucket_of(int64_t length) const {
        if (edges.empty()) return length < 2 || length > kLongest ? length : int64_t{1} << (64 - __builtin_clzll(static_cast<uint64_t>(length - 1)));
        auto edge = std::lower_bound(edges.begin(), edges.end(), length);
        return length == 0 || edge == edges.end() ? length : *edge;
    }
};

}  // namespace batchmill
