// Small pieces of memory that one thread takes and gives back over and over.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

namespace batchmill {

// What libnghttp2 allocates for a request, some fifteen pieces, is given back a turn later with that of hundreds of others. The C library
// keeps seven of a size at hand and merges the rest with what lies beside them; here all wait, the last given back on top, while its bytes
// are still in the cache. Up to kKeptBytes: the rest of a peak goes back to the C library.
//
// Not where the address sanitizer looks on: it would not see a piece used after it was given back.
class PiecePool {
public:
    static constexpr size_t kStep = 64, kLargest = 1024, kKeptBytes = 8 << 20;

    PiecePool() = default;
    PiecePool(const PiecePool&) = delete;
    PiecePool& operator=(const PiecePool&) = delete;
    ~PiecePool() {
        for (Head* list : free_)
            for (Head* next; list; list = next) next = list->next, ::free(list);
    }

    size_t kept() const { return kept_; }

    // Null: there is no memory.
    void* take(size_t bytes) {
        if (bytes > SIZE_MAX - sizeof(Head) - kStep) return nullptr;
        size_t room = bytes ? (bytes + kStep - 1) / kStep * kStep : kStep;
        Head** list = list_of(room);
        if (list && *list) {
            Head* head = *list;
            *list = head->next;
            kept_ -= room;
            return head + 1;
        }
        Head* head = static_cast<Head*>(::malloc(sizeof(Head) + room));
        if (!head) return nullptr;
        head->room = room;
        return head + 1;
    }

    void* take_zeroed(size_t count, size_t bytes) {
        if (bytes && count > SIZE_MAX / bytes) return nullptr;
        void* piece = take(count * bytes);
        return piece ? memset(piece, 0, count * bytes) : nullptr;
    }

    void give(void* piece) {
        if (!piece) return;
        Head* head = static_cast<Head*>(piece) - 1;
        Head** list = list_of(head->room);
        if (!list || kept_ + head->room > kKeptBytes) return ::free(head);
        head->next = *list;
        *list = head;
        kept_ += head->room;
    }

    // The same bytes with room for so many. Null: there is no memory, and the piece is as it was.
    void* grow(void* piece, size_t bytes) {
        if (!piece) return take(bytes);
        size_t room = (static_cast<Head*>(piece) - 1)->room;
        if (bytes <= room) return piece;
        void* larger = take(bytes);
        if (!larger) return nullptr;
        memcpy(larger, piece, room);
        give(piece);
        return larger;
    }

private:
    struct alignas(16) Head {
        size_t room;
        Head* next;
    };

    Head** list_of(size_t room) {
#if defined(__SANITIZE_ADDRESS__)
        return nullptr;
#else
        return room <= kLargest ? &free_[room / kStep - 1] : nullptr;
#endif
    }

    Head* free_[kLargest / kStep] = {};
    size_t kept_ = 0;
};

}  // namespace batchmill
