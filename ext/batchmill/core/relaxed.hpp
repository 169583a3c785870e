// Figures that threads tell each other, where none orders what they say of anything else.
#pragma once
#include <atomic>

namespace batchmill {

// An atomic whose stores are plain ones on x86: those of std::atomic's default order are exchanges, of some 20 cycles each.
template <class T>
struct Relaxed : std::atomic<T> {
    using std::atomic<T>::atomic;
    T load() const noexcept { return std::atomic<T>::load(std::memory_order_relaxed); }
    void store(T value) noexcept { std::atomic<T>::store(value, std::memory_order_relaxed); }
};

}  // namespace batchmill
