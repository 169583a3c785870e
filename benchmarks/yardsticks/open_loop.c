/* An open-loop load tool for gRPC: sends unary ModelInfer calls when a schedule says so, whether or not answers come.
 * One thread, one epoll, libnghttp2 sessions. The latency to look at is done - due: a request that had to wait for its turn
 * in this tool or for a free stream has waited, too. A deadline counts from then, as with gRPC's clients: the server is told what is left of it
 * when the request is sent, and one that has no stream until then is never sent. But late answers are waited for: they are to be counted.
 * Build: cc -O2 -D_GNU_SOURCE -o open_loop open_loop.c -lnghttp2
 * Run:   ./open_loop [-c CONNECTIONS] [-d DEADLINE_MS] [-w WAIT_S] PORT SCHEDULE RESULT GROUP:PAYLOAD...
 * Each group of payloads has CONNECTIONS of its own. The files: open_loop_files.h. The figures of the tool itself: on stdout. */
#include "open_loop_files.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    EVENTS = 64,            /* between two looks at the schedule */
    TURN = 64,              /* requests sent between two looks at the sockets, when behind the schedule */
    HEADERS = 7,
    WINDOW = 1 << 20,       /* for answers: of a stream, and 16 times that of a connection */
    READ_SIZE = 1 << 18,
    WRITE_SIZE = 1 << 18,
    SETTLE_MS = 20,         /* before the first request, so that connections are quiet */
    DEADLINE_EXCEEDED = 4,
    INTERNAL = 13,          /* what a gRPC client makes of an answer that is OK and has no message */
};
static const uint32_t NONE = UINT32_MAX;

struct progress {
    uint32_t at;            /* bytes of the payload sent */
    uint32_t got;           /* bytes of the answer */
    uint32_t next;          /* request that is held behind this one */
};

struct connection {
    int fd;                 /* -1: lost */
    int ready;              /* the peer's settings have come */
    int dirty;              /* the session may have something to send */
    uint32_t open;          /* streams */
    size_t size, sent;      /* of what is in out */
    nghttp2_session *session;
    uint8_t *out;
};

struct group {              /* `next` takes turns; requests for which no connection had a free stream are held, oldest first */
    struct connection *connections;
    uint32_t next, first_held, last_held;
};

static struct group groups[GROUPS];
static struct payload *payloads;
static struct request *requests;
static struct progress *progress;
static uint32_t count, connections = 16;
static int epoll;
static uint64_t started_ns, now_ns;     /* now: since the start, of this turn */
static uint64_t lag_ns, held, lost, answered, deadline_ns;    /* deadline: after the time a request is due; 0: none */
static nghttp2_nv head[HEADERS];
static size_t heads;

static uint64_t clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void add_header(const char *name, const char *value) {
    head[heads++] = (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value),
                                 NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
}

static ssize_t next_part(nghttp2_session *session, int32_t id, uint8_t *to, size_t room, uint32_t *flags,
                         nghttp2_data_source *source, void *user) {
    (void)session, (void)id, (void)user;
    uint32_t i = (uint32_t)((struct request *)source->ptr - requests);
    const struct payload *p = &payloads[requests[i].payload];
    size_t size = p->size - progress[i].at;
    if (size > room)
        size = room;
    memcpy(to, p->bytes + progress[i].at, size);
    progress[i].at += (uint32_t)size;
    if (progress[i].at == p->size) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        requests[i].sent_ns = now_ns;
    }
    return (ssize_t)size;
}

static int see_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_size,
                      const uint8_t *value, size_t value_size, uint8_t flags, void *user) {
    (void)flags, (void)value_size, (void)user;
    if (name_size == 11 && memcmp(name, "grpc-status", 11) == 0) {
        struct request *r = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
        if (r != NULL)
            r->status = atoi((const char *)value);  /* nghttp2 ends values with a zero */
    }
    return 0;
}

static int see_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t size, void *user) {
    (void)flags, (void)data, (void)user;
    struct request *r = nghttp2_session_get_stream_user_data(session, id);
    if (r != NULL)
        progress[r - requests].got += (uint32_t)size;
    return 0;
}

static int see_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
    (void)session;
    if (frame->hd.type == NGHTTP2_SETTINGS && !(frame->hd.flags & NGHTTP2_FLAG_ACK))
        ((struct connection *)user)->ready = 1;
    return 0;
}

static int end_stream(nghttp2_session *session, int32_t id, uint32_t code, void *user) {
    (void)code;
    struct connection *c = user;
    struct request *r = nghttp2_session_get_stream_user_data(session, id);
    c->open--;
    if (r == NULL)
        return 0;
    r->done_ns = now_ns;
    if (r->status == 0 && progress[r - requests].got == 0)
        r->status = INTERNAL;
    answered++;
    return 0;
}

static nghttp2_session_callbacks *make_callbacks(void) {
    nghttp2_session_callbacks *calls;
    nghttp2_session_callbacks_new(&calls);
    nghttp2_session_callbacks_set_on_header_callback(calls, see_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(calls, see_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(calls, see_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(calls, end_stream);
    return calls;
}

static void lose(struct connection *c) {
    close(c->fd);
    c->fd = -1;
    lost++;
}

/* Sends what the session has to say as far as the socket takes it; the rest when epoll tells that it takes more. */
static void flush(struct connection *c) {
    const uint8_t *part;
    c->dirty = 0;
    while (c->fd >= 0) {
        while (c->sent < c->size) {
            ssize_t gone = send(c->fd, c->out + c->sent, c->size - c->sent, MSG_NOSIGNAL);
            if (gone < 0) {
                if (errno != EAGAIN)
                    lose(c);
                return;
            }
            c->sent += (size_t)gone;
        }
        c->size = c->sent = 0;
        /* A part is a frame, at most 16 KiB and a head: there is room for one more as long as that is free. */
        for (ssize_t got; c->size + (1 << 15) <= WRITE_SIZE && (got = nghttp2_session_mem_send(c->session, &part)) > 0;) {
            memcpy(c->out + c->size, part, (size_t)got);
            c->size += (size_t)got;
        }
        if (c->size == 0)
            return;
    }
}

/* Reads what has come. A full buffer may have left something behind, of which epoll tells no more. */
static void receive(struct connection *c) {
    static uint8_t in[READ_SIZE];
    ssize_t got;
    do {
        got = recv(c->fd, in, sizeof in, 0);
        now_ns = clock_ns() - started_ns;
        if (got == 0 || (got < 0 && errno != EAGAIN) || (got > 0 && nghttp2_session_mem_recv(c->session, in, (size_t)got) < 0))
            lose(c);
    } while (got == sizeof in && c->fd >= 0);
    c->dirty = 1;
}

static struct connection *free_connection(struct group *g) {
    for (uint32_t i = 0; i < connections; i++) {
        struct connection *c = &g->connections[g->next++ % connections];
        if (c->fd >= 0 && c->open < nghttp2_session_get_remote_settings(c->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS))
            return c;
    }
    return NULL;
}

/* 0 when no connection has a free stream. */
static int submit(struct group *g, uint32_t i) {
    uint64_t end_ns = requests[i].due_ns + deadline_ns;
    if (deadline_ns && end_ns <= now_ns) {
        requests[i].status = DEADLINE_EXCEEDED;
        requests[i].done_ns = now_ns;
        answered++;
        return 1;
    }
    struct connection *c = free_connection(g);
    if (c == NULL)
        return 0;
    nghttp2_data_provider body = {.source.ptr = &requests[i], .read_callback = next_part};
    char left[24];
    if (deadline_ns) {      /* the only header whose value changes: nghttp2 copies it */
        int size = snprintf(left, sizeof left, "%lluu", (unsigned long long)((end_ns - now_ns + 999) / 1000));
        head[heads] = (nghttp2_nv){(uint8_t *)"grpc-timeout", (uint8_t *)left, 12, (size_t)size, NGHTTP2_NV_FLAG_NO_INDEX};
    }
    if (nghttp2_submit_request(c->session, NULL, head, heads + (deadline_ns > 0), &body, &requests[i]) < 0)
        lose(c);
    else
        c->open++;
    c->dirty = 1;
    return 1;
}

static void hold(struct group *g, uint32_t i) {
    if (g->first_held == NONE)
        g->first_held = i;
    else
        progress[g->last_held].next = i;
    g->last_held = i;
    held++;
}

/* Submits what was held and may go now, then what is due; the first request that is not. */
static uint32_t submit_due(uint32_t next) {
    for (int i = 0; i < GROUPS; i++) {
        struct group *g = &groups[i];
        while (g->first_held != NONE && submit(g, g->first_held))
            g->first_held = progress[g->first_held].next;
    }
    for (int n = 0; n < TURN && next < count && requests[next].due_ns <= now_ns; n++, next++) {
        struct group *g = &groups[payloads[requests[next].payload].group];
        requests[next].taken_ns = now_ns;
        if (now_ns - requests[next].due_ns > lag_ns)
            lag_ns = now_ns - requests[next].due_ns;
        if (g->first_held != NONE || !submit(g, next))
            hold(g, next);
    }
    return next;
}

static void flush_dirty(void) {
    for (int i = 0; i < GROUPS; i++)
        for (uint32_t k = 0; groups[i].connections != NULL && k < connections; k++)
            if (groups[i].connections[k].dirty)
                flush(&groups[i].connections[k]);
}

/* Waits for sockets until then, at most. */
static void wait_until(uint64_t until_ns) {
    struct epoll_event events[EVENTS];
    uint64_t wait_ns = until_ns > now_ns ? until_ns - now_ns : 0;
    struct timespec timeout = {.tv_sec = (time_t)(wait_ns / 1000000000u), .tv_nsec = (long)(wait_ns % 1000000000u)};
    int ready = epoll_pwait2(epoll, events, EVENTS, &timeout, NULL);
    for (int i = 0; i < ready; i++) {
        struct connection *c = events[i].data.ptr;
        if (c->fd >= 0 && events[i].events & ~(uint32_t)EPOLLOUT)
            receive(c);
        c->dirty = 1;
    }
    now_ns = clock_ns() - started_ns;
}

static void run(uint64_t wait_ns) {
    uint64_t end_ns = requests[count - 1].due_ns + wait_ns;
    for (uint32_t next = 0; (next < count || answered < count) && now_ns < end_ns;) {
        next = submit_due(next);
        flush_dirty();
        wait_until(next < count && requests[next].due_ns < end_ns ? requests[next].due_ns : end_ns);
    }
}

static void connect_all(struct group *g, int port, nghttp2_session_callbacks *calls) {
    static const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0}, {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW}};
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    g->connections = calloc(connections, sizeof *g->connections);
    for (uint32_t i = 0; i < connections; i++) {
        struct connection *c = &g->connections[i];
        int on = 1;
        c->fd = socket(AF_INET, SOCK_STREAM, 0);
        c->out = malloc(WRITE_SIZE);
        if (connect(c->fd, (struct sockaddr *)&where, sizeof where) != 0)
            fail("open_loop: connect");
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        nghttp2_session_client_new(&c->session, calls, c);
        nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, 2);
        nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, 16 * WINDOW);
        flush(c);
        while (c->fd >= 0 && !c->ready) {
            receive(c);
            flush(c);
        }
        if (c->fd < 0)
            fail("open_loop: no HTTP/2");
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
        epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
    }
}

static double cpu_secs(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

int main(int argc, char **argv) {
    static char authority[32];
    double wait_s = 5;
    for (int option; (option = getopt(argc, argv, "c:d:w:")) != -1;) {
        if (option == 'c')
            connections = (uint32_t)atoi(optarg);
        else if (option == 'd')
            deadline_ns = strtoull(optarg, NULL, 10) * 1000000u;
        else if (option == 'w')
            wait_s = atof(optarg);
        else
            return 2;
    }
    if (argc - optind < 4 || connections == 0) {
        fprintf(stderr, "usage: open_loop [-c CONNECTIONS] [-d DEADLINE_MS] [-w WAIT_S] PORT SCHEDULE RESULT GROUP:PAYLOAD...\n");
        return 2;
    }
    uint32_t payload_count = (uint32_t)(argc - optind - 3);
    payloads = calloc(payload_count, sizeof *payloads);
    for (uint32_t i = 0; i < payload_count; i++)
        payloads[i] = read_payload(argv[optind + 3 + (int)i]);
    requests = read_schedule(argv[optind + 1], payload_count, &count);
    progress = calloc(count, sizeof *progress);
    for (uint32_t i = 0; i < count; i++)
        progress[i].next = NONE;

    snprintf(authority, sizeof authority, "127.0.0.1:%s", argv[optind]);
    add_header(":method", "POST");
    add_header(":scheme", "http");
    add_header(":path", "/inference.GRPCInferenceService/ModelInfer");
    add_header(":authority", authority);
    add_header("content-type", "application/grpc");
    add_header("te", "trailers");
    nghttp2_session_callbacks *calls = make_callbacks();
    epoll = epoll_create1(0);
    for (int i = 0; i < GROUPS; i++)
        groups[i].first_held = NONE;
    for (uint32_t i = 0; i < payload_count; i++)
        if (groups[payloads[i].group].connections == NULL)
            connect_all(&groups[payloads[i].group], atoi(argv[optind]), calls);
    prctl(PR_SET_TIMERSLACK, 1);    /* else the kernel wakes us up to 50 us late */
    usleep(SETTLE_MS * 1000);
    double cpu = cpu_secs();
    started_ns = clock_ns();
    now_ns = 0;
    run((uint64_t)(wait_s * 1e9));
    printf("started_ns=%llu secs=%.6f cpu_secs=%.6f answered=%llu held=%llu lost=%llu lag_us=%.1f\n", (unsigned long long)started_ns,
           (double)now_ns / 1e9, cpu_secs() - cpu, (unsigned long long)answered, (unsigned long long)held,
           (unsigned long long)lost, (double)lag_ns / 1e3);
    write_results(argv[optind + 2], requests, count);
    return 0;
}
