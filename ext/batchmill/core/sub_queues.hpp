// Those who wait, by shape: requests whose rows may share a run, the most urgent first.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "message.hpp"

namespace batchmill {

struct Waiting {
    int64_t urgency_ns = 0;            // when it is due; by its priority later than that
    uint64_t number = 0;               // of its arrival: among equals the first comes first
    int64_t cost_ns = 0;               // its share of a batch's run, as predicted
    InferRequest* request = nullptr;

    bool operator<(const Waiting& other) const {  // less urgent: the standard library's heaps have the greatest on top
        return urgency_ns != other.urgency_ns ? urgency_ns > other.urgency_ns : number > other.number;
    }
};

// Of the datatypes and of all axes but the first of what a request has. Fibonacci hashing (Knuth, vol. 3, 6.4).
inline uint64_t shape_hash(const InferRequest* request) {
    constexpr uint64_t kMix = 0x9E3779B97F4A7C15;
    uint64_t mixed = 0;
    for (const TensorView& tensor : request->inputs) {
        mixed = (mixed ^ (static_cast<uint64_t>(tensor.dtype) << 8 | static_cast<uint64_t>(tensor.shape.rank))) * kMix;
        for (int axis = 1; axis < tensor.shape.rank; ++axis) mixed = (mixed ^ mixed >> 29 ^ static_cast<uint64_t>(tensor.shape.dims[axis])) * kMix;
    }
    return mixed;
}

// Whether two requests' rows may share a run: same datatypes and the same axes but the first.
inline bool same_shape(const InferRequest* a, const InferRequest* b) {
    if (a->rows == 0 || b->rows == 0) return false;
    return std::equal(a->inputs.begin(), a->inputs.end(), b->inputs.begin(), b->inputs.end(), [](const TensorView& x, const TensorView& y) {
        return x.dtype == y.dtype && x.shape.rank == y.shape.rank
            && (x.shape.rank < 2 || std::equal(x.shape.dims + 1, x.shape.dims + x.shape.rank, y.shape.dims + 1));
    });
}

// Requests whose rows may share a run, the most urgent first. Those who come in the order of their urgency, as all do who name no
// deadline, stay in that order, and are taken from the front; one that does not makes a heap of them, until they are all gone.
struct SubQueue {
    static constexpr size_t kCompact = 64;

    uint64_t shape = 0;                // shape_hash of each
    bool alone = false;                // of requests without rows: each runs by itself
    bool ordered = true;
    size_t head = 0;                   // how many of an ordered one have been taken
    int64_t rows = 0;
    std::vector<Waiting> waiting;

    size_t size() const { return waiting.size() - head; }
    Waiting& at(size_t index) { return waiting[head + index]; }
    const Waiting& at(size_t index) const { return waiting[head + index]; }
    const Waiting& top() const { return waiting[head]; }
    void push(const Waiting& one) {
        if (ordered && (!size() || one < waiting.back())) return waiting.push_back(one);
        forget_taken();
        ordered = false;               // what is in order is a heap, too
        waiting.push_back(one);
        std::push_heap(waiting.begin(), waiting.end());
    }
    void pop() {
        if (ordered) {
            ++head;
            if (head == waiting.size() || (head > kCompact && head > waiting.size() / 2)) forget_taken();
            return;
        }
        std::pop_heap(waiting.begin(), waiting.end());
        waiting.pop_back();
        ordered = waiting.empty();
    }
    void forget_taken() {
        waiting.erase(waiting.begin(), waiting.begin() + static_cast<std::ptrdiff_t>(head));
        head = 0;
    }
};

}  // namespace batchmill
