// What an answer is known by when its ground truth comes: who made it, when, and what it said, under a seal that only this server can set.
#pragma once
#include <atomic>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "message.hpp"

namespace batchmill {

// Of SipHash. All zero: none was set.
struct SealKey {
    uint64_t first = 0, second = 0;
};

constexpr uint32_t kNoPrediction = 0xFFFFFFFF;

struct FeedbackToken {
    uint64_t version = 0;
    uint32_t generation = 0;              // of the model's route
    uint32_t made_s = 0;                  // since 1970
    uint32_t prediction = kNoPrediction;  // the class that was answered
    uint64_t nonce = 0;
};

// SipHash-2-4. Source: Aumasson, Bernstein, SipHash: a fast short-input PRF (INDOCRYPT 2012); its reference code has the test vectors.
struct SipState {
    uint64_t a, b, c, d;

    explicit SipState(const SealKey& key)
        : a(key.first ^ 0x736f6d6570736575u), b(key.second ^ 0x646f72616e646f6du), c(key.first ^ 0x6c7967656e657261u), d(key.second ^ 0x7465646279746573u) {}
    static uint64_t turned(uint64_t value, int bits) { return value << bits | value >> (64 - bits); }
    void round() {
        a += b, b = turned(b, 13) ^ a, a = turned(a, 32);
        c += d, d = turned(d, 16) ^ c;
        a += d, d = turned(d, 21) ^ a;
        c += b, b = turned(b, 17) ^ c, c = turned(c, 32);
    }
    void take(uint64_t word) {
        d ^= word;
        round(), round();
        a ^= word;
    }
    uint64_t end() {
        c ^= 0xff;
        round(), round(), round(), round();
        return a ^ b ^ c ^ d;
    }
};

inline uint64_t sip_hash(const SealKey& key, const void* data, size_t size) {
    SipState state(key);
    const auto* at = static_cast<const uint8_t*>(data);
    uint64_t word = 0;
    for (size_t left = size; left >= 8; left -= 8, at += 8) {
        memcpy(&word, at, 8);  // little-endian, as all that this server runs on
        state.take(word);
    }
    word = 0;
    memcpy(&word, at, size % 8);
    state.take(word | static_cast<uint64_t>(size) << 56);
    return state.end();
}

// Of the token's fields and the model's name, by its hash: the token of another model is none of this one's.
constexpr size_t kSealed = 28, kTokenBytes = kSealed + 8;
static_assert(kTokenChars == kTokenBytes / 3 * 4);

inline uint64_t seal_of(const SealKey& key, std::string_view model, const uint8_t* fields) {
    uint8_t sealed[kSealed + 8];
    uint64_t name = sip_hash(key, model.data(), model.size());
    memcpy(sealed, fields, kSealed);
    memcpy(sealed + kSealed, &name, 8);
    return sip_hash(key, sealed, sizeof sealed);
}

constexpr char kBase64Url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

// kTokenChars of base64url (RFC 4648, section 5): a multiple of 3 bytes, so that there is no padding.
inline void write_token(const SealKey& key, std::string_view model, const FeedbackToken& token, char* target) {
    uint8_t bytes[kTokenBytes];
    memcpy(bytes, &token.version, 8);
    memcpy(bytes + 8, &token.generation, 4);
    memcpy(bytes + 12, &token.made_s, 4);
    memcpy(bytes + 16, &token.prediction, 4);
    memcpy(bytes + 20, &token.nonce, 8);
    uint64_t seal = seal_of(key, model, bytes);
    memcpy(bytes + kSealed, &seal, 8);
    for (size_t index = 0; index < kTokenBytes; index += 3, target += 4) {
        uint32_t bits = static_cast<uint32_t>(bytes[index] << 16 | bytes[index + 1] << 8 | bytes[index + 2]);
        target[0] = kBase64Url[bits >> 18];
        target[1] = kBase64Url[bits >> 12 & 63];
        target[2] = kBase64Url[bits >> 6 & 63];
        target[3] = kBase64Url[bits & 63];
    }
}

inline int value_of(char one) {
    if (one >= 'A' && one <= 'Z') return one - 'A';
    if (one >= 'a' && one <= 'z') return one - 'a' + 26;
    if (one >= '0' && one <= '9') return one - '0' + 52;
    return one == '-' ? 62 : one == '_' ? 63 : -1;
}

// False: it is none of this model, or was not made with this key.
inline bool read_token(const SealKey& key, std::string_view model, std::string_view text, FeedbackToken* token) {
    uint8_t bytes[kTokenBytes];
    if (text.size() != kTokenChars) return false;
    for (size_t index = 0; index < kTokenChars; index += 4) {
        int bits = 0;
        for (size_t at = index; at < index + 4; ++at) {
            int value = value_of(text[at]);
            if (value < 0) return false;
            bits = bits << 6 | value;
        }
        uint8_t* target = bytes + index / 4 * 3;
        target[0] = static_cast<uint8_t>(bits >> 16), target[1] = static_cast<uint8_t>(bits >> 8), target[2] = static_cast<uint8_t>(bits);
    }
    uint64_t seal;
    memcpy(&seal, bytes + kSealed, 8);
    // Compared as one word, which takes equally long wherever they differ.
    if (seal != seal_of(key, model, bytes)) return false;
    memcpy(&token->version, bytes, 8);
    memcpy(&token->generation, bytes + 8, 4);
    memcpy(&token->made_s, bytes + 12, 4);
    memcpy(&token->prediction, bytes + 16, 4);
    memcpy(&token->nonce, bytes + 20, 8);
    return true;
}

// The key of all models of this process: set before the first token is asked for, read by any thread.
struct SharedKey {
    std::atomic<uint64_t> first{0}, second{0};

    void set(const SealKey& key) { first.store(key.first), second.store(key.second); }
    SealKey get() const { return {first.load(std::memory_order_relaxed), second.load(std::memory_order_relaxed)}; }
};

}  // namespace batchmill
