// A circuit breaker: a version whose runs keep failing is spared requests for a while, and then tried with a few.
#pragma once
#include <atomic>
#include <cstdint>
#include <mutex>

namespace batchmill {

enum class Breaking : int32_t { kClosed, kHalfOpen, kOpen };

struct BreakerTerms {
    double failures = 0;         // share of the window's requests from which it opens; 0: never
    int64_t window_ns = 10'000'000'000, open_ns = 5'000'000'000;
    int64_t min_requests = 20;   // in the window: of fewer a share says nothing
    bool invalid = false;        // whether runs count that fail for the values they were given

    bool operator==(const BreakerTerms& other) const {
        return failures == other.failures && window_ns == other.window_ns && open_ns == other.open_ns && min_requests == other.min_requests
               && invalid == other.invalid;
    }
};

// CLOSED -> OPEN when failures reach their share -> HALF_OPEN when open_ns have passed -> CLOSED when kTrials went well, OPEN when one did not.
// Pure: what comes of it follows from the calls and their times. Source: Nygard, Release It! (2007), "Circuit Breaker".
struct BreakerMind {
    static constexpr int kParts = 10;      // the window is counted in so many parts, each of which is forgotten as a whole
    static constexpr int64_t kTrials = 5;  // requests that a half-open one is tried with

    struct Part {
        int64_t number = -1, requests = 0, failures = 0;  // number: of the parts of time
    };

    Breaking state = Breaking::kClosed;
    int64_t since_ns = 0;                  // of the state; half-open: of the trials in hand
    int64_t given = 0, passed = 0;         // trials
    int64_t opened = 0;                    // times
    Part parts[kParts];

    void enter(Breaking next, int64_t now) {
        state = next;
        since_ns = now;
        given = passed = 0;
        opened += next == Breaking::kOpen;
        for (Part& part : parts) part = {};
    }
    // Whether a request may go to the version.
    bool admits(const BreakerTerms& terms, int64_t now) {
        if (state == Breaking::kClosed) return true;
        if (state == Breaking::kOpen) {
            if (now - since_ns < terms.open_ns) return false;
            enter(Breaking::kHalfOpen, now);
        } else if (given >= kTrials && now - since_ns >= terms.open_ns) {
            enter(Breaking::kHalfOpen, now);  // trials that never ran, as their callers had gone: others
        }
        if (given >= kTrials) return false;
        ++given;
        return true;
    }
    // What came of requests that ran, failures among them.
    void record(const BreakerTerms& terms, int64_t requests, int64_t failures, int64_t now) {
        if (state == Breaking::kOpen || requests <= 0) return;
        if (state == Breaking::kHalfOpen) {
            passed += requests - failures;
            if (failures) enter(Breaking::kOpen, now);
            else if (passed >= kTrials) enter(Breaking::kClosed, now);
            return;
        }
        int64_t width = terms.window_ns / kParts > 0 ? terms.window_ns / kParts : 1, number = now / width, all = 0, failed = 0;
        Part& own = parts[number % kParts];
        if (own.number != number) own = {number, 0, 0};
        own.requests += requests;
        own.failures += failures;
        for (const Part& part : parts) {
            if (part.number <= number - kParts) continue;
            all += part.requests;
            failed += part.failures;
        }
        if (all >= terms.min_requests && static_cast<double>(failed) >= terms.failures * static_cast<double>(all)) enter(Breaking::kOpen, now);
    }
};

// For any thread. Costs a version without terms one load.
struct Breaker {
    std::atomic<bool> on{false};
    std::atomic<Breaking> state{Breaking::kClosed};  // these two for those who look on
    std::atomic<int64_t> opened{0};

    void set(const BreakerTerms& given) {
        std::lock_guard<std::mutex> guard(mutex);
        if (given == terms) return;
        terms = given;
        mind.enter(Breaking::kClosed, 0);
        tell();
        on.store(given.failures > 0);
    }
    bool admits(int64_t now) {
        std::lock_guard<std::mutex> guard(mutex);
        bool may = mind.admits(terms, now);
        tell();
        return may;
    }
    // invalid: how many failed for the values they were given.
    void record(int64_t requests, int64_t failures, int64_t invalid, int64_t now) {
        std::lock_guard<std::mutex> guard(mutex);
        mind.record(terms, requests, failures + (terms.invalid ? invalid : 0), now);
        tell();
    }
    // Until a request may go to the version; 0: one may.
    int64_t closed_for_ns(int64_t now) {
        std::lock_guard<std::mutex> guard(mutex);
        int64_t left = mind.state == Breaking::kClosed ? 0 : mind.since_ns + terms.open_ns - now;
        return left > 0 ? left : 0;
    }

  private:
    std::mutex mutex;  // guards what follows
    BreakerTerms terms;
    BreakerMind mind;

    void tell() {
        state.store(mind.state, std::memory_order_relaxed);
        opened.store(mind.opened, std::memory_order_relaxed);
    }
};

}  // namespace batchmill
