// A growing byte buffer that is reused from request to request, and the budget that all of them count against.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#define BATCHMILL_EXACT_BYTES (4 << 10)
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define BATCHMILL_EXACT_BYTES (4 << 10)
#endif
#endif

namespace batchmill {

// 64-byte aligned, because ONNX Runtime's kernels want aligned inputs. Not initialised beyond size.
struct Buffer {
    static constexpr size_t kAlignment = 64;
    static constexpr size_t kKeepBytes = 64 << 10;  // clear() gives larger blocks back: one big request must not pin its memory
    static constexpr size_t kKeepScratchBytes = 16 << 20;  // the same of a thread's scratch, of which there are few

    uint8_t* data = nullptr;
    size_t size = 0;
    size_t capacity = 0;
    size_t limit = SIZE_MAX;      // reserve() refuses more
    bool over = false;            // it has done so

    Buffer() = default;
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { std::free(data); }

    // False when there is no memory; the content is kept then.
    bool reserve(size_t wanted) {
        if (data && wanted <= capacity) return true;
        if (wanted > limit) {
            over = true;
            return false;
        }
        // Large blocks grow fast: each step copies, and pages that are not written cost nothing.
        size_t grown = capacity < 512 ? 512 : capacity < kKeepBytes ? capacity + capacity / 2 : 4 * capacity;
        if (grown > limit) grown = limit;
        if (grown < wanted) grown = wanted;
        grown = (grown + kAlignment - 1) & ~(kAlignment - 1);
#ifdef BATCHMILL_EXACT_BYTES  // no slack in small blocks, so that AddressSanitizer sees who reads or writes past the end
        if (wanted <= BATCHMILL_EXACT_BYTES) grown = wanted ? wanted : 1;
#endif
        void* block = nullptr;
        if (posix_memalign(&block, kAlignment, grown)) return false;
        auto* moved = static_cast<uint8_t*>(block);
        if (size) std::memcpy(moved, data, size);
        std::free(data);
        data = moved;
        capacity = grown;
        return true;
    }
    bool append(const void* bytes, size_t count) {
        if (!reserve(size + count)) return false;
        if (count) std::memcpy(data + size, bytes, count);
        size += count;
        return true;
    }
    // Room for count more bytes, counted as used; null when there is no memory.
    uint8_t* extend(size_t count) {
        if (!reserve(size + count)) return nullptr;
        uint8_t* room = data + size;
        size += count;
        return room;
    }
    void clear(size_t keep = kKeepBytes) {
        size = 0;
        if (capacity > keep) release();
    }
    void release() {
        std::free(data);
        data = nullptr;
        size = capacity = 0;
    }
    void swap(Buffer& other) {
        std::swap(data, other.data);
        std::swap(size, other.size);
        std::swap(capacity, other.capacity);
    }
};

// Bytes of requests held over all connections. take() refuses over the limit and never waits.
struct MemoryBudget {
    std::atomic<int64_t> used{0};
    std::atomic<int64_t> limit{INT64_MAX};

    bool take(int64_t bytes) {
        if (used.fetch_add(bytes, std::memory_order_relaxed) + bytes <= limit.load(std::memory_order_relaxed)) return true;
        used.fetch_sub(bytes, std::memory_order_relaxed);
        return false;
    }
    // Takes, in steps, what is missing until `charged` covers `wanted` bytes. False: over the limit; charged says what was taken.
    bool cover(int64_t* charged, int64_t wanted) {
        constexpr int64_t kStep = 64 << 10;  // asked for at once: the counter is shared by all threads
        for (; wanted > *charged; *charged += kStep)
            if (!take(kStep)) return false;
        return true;
    }
    void give(int64_t bytes) { used.fetch_sub(bytes, std::memory_order_relaxed); }
};

}  // namespace batchmill
