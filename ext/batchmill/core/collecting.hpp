// For how long an I/O thread leaves its sockets alone after it has turned callers away. Times: monotonic, ns.
#pragma once
#include <stdint.h>

#include <algorithm>

namespace batchmill {

// Who is turned away while models run costs several times what he does among others: the core is taken from the run and given back for
// one request, and runs cold: to begin a turn costs what another fifty requests in it do. So they are let collect for a moment. It is
// short beside the queue that they were refused for, so that no executor runs out of work, and beside the time of those who were let in;
// and it ends where some hundred have come. Where callers of another version have come of late, they are not to pay for it. Answers do
// not wait.
// (Of networks: interrupt moderation; Mogul and Ramakrishnan, Eliminating receive livelock, 1997.)
struct Collecting {
    static constexpr int64_t kMostNs = 15'000'000, kMostBesideOthersNs = 500'000, kOthersNs = 100'000'000;
    static constexpr int64_t kShare = 6, kRequests = 256;

    const void* full = nullptr;   // version of the last who was turned away; only compared
    int64_t others_ns = 0;        // when somebody was let in for another one
    bool turned_away = false;     // somebody was, in this turn
    int64_t bearable_ns = 0;      // the shortest wait and time left of those of this turn; 0: nobody has any
    int64_t read_ns = 0;          // when sockets were last read
    int64_t period_ns = 0;        // and how long after the time before
    int64_t until_ns = 0;         // they are left alone until then; 0: they are not
    int64_t rested_ns = 0;        // for how long they were, before they were read this time

    void turn_away(const void* version, int64_t predicted_wait_ns) {
        full = version;
        turned_away = true;
        bear(std::max<int64_t>(1, predicted_wait_ns));
    }

    // left_ns: until the deadline; 0: there is none.
    void let_in(const void* version, int64_t left_ns, int64_t now_ns) {
        if (full && full != version) others_ns = now_ns;
        if (left_ns > 0) bear(left_ns);
    }

    void begin_reading(int64_t now_ns) {
        period_ns = now_ns - read_ns;
        rested_ns = until_ns ? period_ns : 0;
        read_ns = now_ns;
        until_ns = 0;
    }

    // requests: read in this turn. busy: all executors are.
    void end_turn(int64_t requests, bool busy, int64_t now_ns) {
        if (turned_away && busy && requests < kRequests) {
            int64_t most = now_ns - others_ns > kOthersNs ? kMostNs : kMostBesideOthersNs;
            until_ns = now_ns + std::min({most, bearable_ns / kShare, std::min(period_ns, kMostNs) * kRequests / std::max<int64_t>(1, requests)});
        }
        turned_away = false;
        bearable_ns = 0;
    }

private:
    void bear(int64_t ns) { bearable_ns = bearable_ns ? std::min(bearable_ns, ns) : ns; }
};

}  // namespace batchmill
