// One I/O thread and what all of them share.
#pragma once
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "access_log.hpp"
#include "bridge.hpp"
#include "collecting.hpp"
#include "executor.hpp"
#include "front.hpp"
#include "pacer.hpp"

namespace batchmill {

constexpr int kMaxIoThreads = 64;

enum class Transport : uint8_t { kUnknown, kHttp1, kHttp2 };

// The time between two reads of a socket that always has something: the median of all, which those that have been quiet hardly move.
struct ReadingRound {
    int64_t ns = 0;

    void note(int64_t since_ns) {
        int64_t step = std::max<int64_t>(ns / 16, 20'000);
        ns = since_ns > ns ? std::min(since_ns, ns + step) : std::max(since_ns, ns - step);
    }
};

// How far the reader of one socket is behind what has come. Times: monotonic, ns.
struct Backlog {
    int64_t drained_ns = 0;       // what is read next came later: when nothing was left, or a round before it was read
    int64_t read_ns = 0;          // when it was read last
    int64_t left = 0;             // bytes that were there and not read then
    double arriving = 0;          // bytes/ns, of late; 0: not known

    struct Ages {
        int64_t first_ns = 0, last_ns = 0;
    };

    // How long the first and the last of the bytes have waited that are read now: first in, first out, as many have come since as now wait
    // behind it (Little, 1961), and where nothing had been left it came after the last read, and was due within a round.
    // read: bytes that are; waiting: that still are there.
    Ages ages(int64_t read, int64_t waiting, int64_t now_ns, ReadingRound& round) {
        int64_t before_ns = std::max(read_ns, drained_ns);
        if (before_ns) round.note(now_ns - before_ns);
        if (!left) drained_ns = std::max(before_ns, now_ns - round.ns);
        int64_t longest = now_ns - drained_ns;
        if (!waiting) {
            *this = {now_ns, now_ns, 0, arriving};
            return {longest, 0};
        }
        if (read_ns && now_ns > read_ns) {
            double came = static_cast<double>(std::max<int64_t>(0, read + waiting - left)) / static_cast<double>(now_ns - read_ns);
            arriving = arriving > 0 ? arriving + (came - arriving) / 8 : came;
        }
        read_ns = now_ns;
        left = waiting;
        if (arriving <= 0) return {longest, longest};
        auto since = [&](int64_t bytes) {
            return static_cast<int64_t>(std::min(static_cast<double>(longest), static_cast<double>(bytes) / arriving));
        };
        return {since(read + waiting), since(waiting)};
    }
};

struct Socket {
    int fd = -1;
    Transport transport = Transport::kUnknown;
    void* front = nullptr;        // Http1Connection or Http2Connection
    bool reading = true;          // false: nothing more is read; closes when all is written
    bool waits_to_write = false;  // EPOLLOUT is armed
    bool paused = false;          // EPOLLIN is off: back-pressure
    bool dirty = false;           // in the dirty list
    bool gone = false;            // fd is closed; lives until its requests have come back
    bool metrics_only = false;    // came by the listener for scrapers
    uint8_t sniffed[24];          // the first bytes, until they tell the transport
    int sniffed_size = 0;
    int64_t opened_ns = 0;
    int64_t linger_until_ns = 0;  // all is said; what the peer still sends is thrown away until then. 0: not yet
    int64_t linger_left = 0;      // ... or until it was so many bytes
    Backlog backlog;
    char peer[64] = "";
    Socket* next = nullptr;       // all sockets of the thread
    Socket* previous = nullptr;
    Socket* next_dirty = nullptr;
};

struct Listener {
    int fd;
    bool metrics_only;            // serves /metrics, liveness and readiness alone
};

// What all threads of a server share.
struct Shared {
    Limits limits;
    MemoryBudget budget;
    ExecutorPool pool;
    ColdQueue cold_queue;
    ShadowLine shadows;
    std::atomic<const RouteTable*> table{nullptr};
    std::atomic<uint64_t> generation{0};
    std::atomic<bool> ready{false}, draining{false};
    std::atomic<int> drain_step{0};          // 0 none, 1 GOAWAY notice and stop accepting, 2 final GOAWAY
    std::atomic<bool> stopping{false};
    std::atomic<int64_t> connections{0}, in_flight{0};
    std::atomic<uint64_t> outcome[kCodes] = {};   // requests that no version answered: unknown model, malformed, ...
    std::atomic<uint64_t> refused_connections{0};
    std::vector<Listener> listeners;
    int64_t max_connections = 10000;
};

struct IoThread {
    Shared* shared = nullptr;
    int index = 0, epoll_fd = -1, wake_fd = -1;
    pthread_t thread;
    Sink sink;
    CompletionQueue completions;
    ColdReplies cold_replies;
    std::vector<ColdReply*> cold_parts;
    const RouteTable* table = nullptr;
    std::atomic<uint64_t> seen_generation{0};
    int drain_seen = 0;
    bool accepting = true;
    std::vector<Version*> touched;         // got rows in this turn
    InferRequest* free_requests = nullptr;
    RequestStack home;                     // requests that shadows have done with ...
    InferRequest* returned = nullptr;      // ... and those taken from there, as they came
    InferRequest* answered = nullptr;      // by this very thread, not yet delivered
    InferRequest* answered_last = nullptr;
    int taken_in = 0;                      // requests of this turn
    Collecting collecting;
    bool flooded = false;                  // more come than are served: turns are kept short
    bool keeps_up = true;                  // with the socket that is read: nothing was left to read
    ReadingRound round;                    // of then
    Scratch* scratch = nullptr;
    Socket* current = nullptr;             // whose front end is being called
    Socket* sockets = nullptr;
    Socket* dirty = nullptr;
    Pacer pacer;
    AccessLog access_log;
    int64_t next_tick_ns = 0;
    int64_t busy_since_ns = 0;             // when it began with what it does now: the turn, or the request after another
    uint8_t buffer[256 << 10];

    ~IoThread() {
        for (InferRequest *one = home.take(), *next; one; one = next) next = one->next, delete one;
        for (InferRequest* next; returned; returned = next) next = returned->next, delete returned;
        for (InferRequest* next; free_requests; free_requests = next) next = free_requests->next, delete free_requests;
        delete scratch;
    }
};

inline int listen_tcp(const sockaddr* address, socklen_t size) {
    int one = 1, fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, address, size) || listen(fd, 4096)) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

inline int accept_socket(int listener, char* peer, size_t peer_size) {
    sockaddr_storage address;
    socklen_t size = sizeof address;
    int fd = accept4(listener, reinterpret_cast<sockaddr*>(&address), &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return fd;
    char host[INET6_ADDRSTRLEN] = "";
    int one = 1;
    if (address.ss_family == AF_INET) {
        auto* v4 = reinterpret_cast<sockaddr_in*>(&address);
        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
        snprintf(peer, peer_size, "ipv4:%s:%d", host, ntohs(v4->sin_port));
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    } else if (address.ss_family == AF_INET6) {
        auto* v6 = reinterpret_cast<sockaddr_in6*>(&address);
        inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
        snprintf(peer, peer_size, "ipv6:[%s]:%d", host, ntohs(v6->sin6_port));
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    } else {
        snprintf(peer, peer_size, "unix:");
    }
    return fd;
}

inline void watch(int epoll_fd, int operation, int fd, uint32_t events, void* data) {
    epoll_event event{};
    event.events = events;
    event.data.ptr = data;
    epoll_ctl(epoll_fd, operation, fd, &event);
}

}  // namespace batchmill
