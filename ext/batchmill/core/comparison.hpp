// How far two answers are apart, output by output, and what is kept of that over many requests.
#pragma once
#include <atomic>
#include <cmath>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "histogram.hpp"
#include "tensor.hpp"

namespace batchmill {

// Mean and squared deviations of numbers that one thread tells; others read, each field for itself.
// Source: Welford (1962), which does not lose the digits that sums of squares do.
struct RunningMoments {
    std::atomic<uint64_t> count{0};
    std::atomic<double> mean{0}, squares{0};

    void put(double value) {
        double before = mean.load(std::memory_order_relaxed), step = value - before;
        add(count, 1);
        double after = before + step / static_cast<double>(count.load(std::memory_order_relaxed));
        mean.store(after, std::memory_order_relaxed);
        squares.store(squares.load(std::memory_order_relaxed) + step * (value - after), std::memory_order_relaxed);
    }
};

// What is close enough, and what counts as agreement.
struct Tolerance {
    double rtol = 1e-3, atol = 1e-5;   // as golden answers: |a - b| <= atol + rtol * |a|, a being what was answered
    bool by_argmax = false;            // outputs of floats with a last axis of 2 or more agree when each row's greatest element is the same
};

// Two tensors.
struct Compared {
    bool shapes_differ = false;        // or their datatypes; nothing else is said then
    bool floats = false;               // else they are compared for equality alone
    bool equal = false;                // byte for byte, or each element by value
    bool finite = true;                // where one has NaN or an infinity, the other has the same
    bool agrees = false;
    double max_abs = 0, max_rel = 0;   // over elements that are finite in both; relative to the greater of the two
    double excess = 0;                 // the greatest difference as a multiple of what is tolerated; infinite: not to be measured
    double cosine = 1;                 // over elements that are finite in both
    int64_t rows = 0;                  // along the last axis, where it has 2 elements or more; 0: there are none
    int64_t argmax_same = 0;           // rows
    bool has_top = false;              // the last axis has more than 5
    double top_same = 0;               // rows, each by the share of its 5 greatest that both have
};

// What is known of one output. Written by one thread.
struct OutputFigures {
    Counter compared{0}, equal{0}, agreeing{0}, shapes_differ{0}, not_finite{0};
    Counter rows{0}, argmax_same{0};
    std::atomic<double> max_abs{0}, max_rel{0};
    RunningMoments abs, rel, cosine, argmax, top;   // of a request each
};

struct NamedTensor {
    std::string name, bytes;
    DataType dtype = DataType::kInvalid;
    Shape shape;
};

// A request whose answers were far apart.
struct Disagreement {
    std::string id, output;            // output: the one that is furthest apart
    double excess = 0, max_abs = 0, max_rel = 0, cosine = 1;
    bool shapes_differ = false;
    bool whole = false;                // bytes are there; else only shapes are
    int64_t unix_ms = 0;
    std::vector<NamedTensor> inputs, answered, candidate;
};

}  // namespace batchmill
