/* H, the floor of gRPC: what the kernel and libnghttp2 ask for a request. One epoll thread; every request's body is sent
 * back with grpc-status 0; no model, no checks, bodies of at most ROOM bytes: not a server.
 * Build: cc -O2 -D_GNU_SOURCE -o floor_h2 floor_h2.c -lnghttp2     Run: ./floor_h2 PORT
 * Load it with the h2load call that loads the server. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    ROOM = 4096,            /* the longest request body kept */
    EVENTS = 256,
    STREAMS = 1024,         /* allowed at once on a connection */
    STREAM_WINDOW = 1 << 20,
    CONNECTION_WINDOW = 1 << 24,
    READ_SIZE = 1 << 18,
    WRITE_SIZE = 1 << 20,   /* bytes gathered for one send */
};

struct stream {
    size_t size, sent;
    uint8_t body[ROOM];
};

struct connection {
    int fd;
    nghttp2_session *session;
};

#define FIELD(name, value) {(uint8_t *)(name), (uint8_t *)(value), sizeof(name) - 1, sizeof(value) - 1, NGHTTP2_NV_FLAG_NONE}
static const nghttp2_nv head[] = {FIELD(":status", "200"), FIELD("content-type", "application/grpc")};
static const nghttp2_nv trailer[] = {FIELD("grpc-status", "0")};

static ssize_t next_part(nghttp2_session *session, int32_t id, uint8_t *to, size_t room, uint32_t *flags,
                         nghttp2_data_source *source, void *user) {
    (void)user;
    struct stream *s = source->ptr;
    size_t size = s->size - s->sent;
    if (size > room)
        size = room;
    memcpy(to, s->body + s->sent, size);
    s->sent += size;
    if (s->sent == s->size) {
        *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        nghttp2_submit_trailer(session, id, trailer, 1);
    }
    return (ssize_t)size;
}

static int begin_stream(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
    (void)user;
    struct stream *s = malloc(sizeof *s);
    s->size = s->sent = 0;
    return nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, s);
}

/* Headers are decoded and looked at one by one, as a server must. */
static int see_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_size,
                      const uint8_t *value, size_t value_size, uint8_t flags, void *user) {
    (void)session, (void)frame, (void)name, (void)name_size, (void)value, (void)value_size, (void)flags, (void)user;
    return 0;
}

static int keep_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t size, void *user) {
    (void)flags, (void)user;
    struct stream *s = nghttp2_session_get_stream_user_data(session, id);
    if (s != NULL && size <= ROOM - s->size) {
        memcpy(s->body + s->size, data, size);
        s->size += size;
    }
    return 0;
}

static int answer_at_end(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
    (void)user;
    int carries = frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS;
    if (!carries || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        return 0;
    int32_t id = frame->hd.stream_id;
    nghttp2_data_provider body = {.source.ptr = nghttp2_session_get_stream_user_data(session, id), .read_callback = next_part};
    nghttp2_submit_response(session, id, head, 2, &body);
    return 0;
}

static int end_stream(nghttp2_session *session, int32_t id, uint32_t code, void *user) {
    (void)code, (void)user;
    free(nghttp2_session_get_stream_user_data(session, id));
    return 0;
}

static nghttp2_session_callbacks *make_callbacks(void) {
    nghttp2_session_callbacks *calls;
    nghttp2_session_callbacks_new(&calls);
    nghttp2_session_callbacks_set_on_begin_headers_callback(calls, begin_stream);
    nghttp2_session_callbacks_set_on_header_callback(calls, see_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(calls, keep_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(calls, answer_at_end);
    nghttp2_session_callbacks_set_on_stream_close_callback(calls, end_stream);
    return calls;
}

/* Sends all that the session has to say, in one call when it fits. */
static void flush(struct connection *c) {
    static uint8_t out[WRITE_SIZE];
    const uint8_t *part;
    size_t size = 0;
    for (ssize_t got; (got = nghttp2_session_mem_send(c->session, &part)) > 0; size += (size_t)got) {
        if (size + (size_t)got > sizeof out) {
            send(c->fd, out, size, MSG_NOSIGNAL);
            size = 0;
        }
        memcpy(out + size, part, (size_t)got);
    }
    if (size > 0)
        send(c->fd, out, size, MSG_NOSIGNAL);
}

/* Answers what has come; 0 when the connection is over. */
static int serve(struct connection *c) {
    static uint8_t in[READ_SIZE];
    ssize_t got = recv(c->fd, in, sizeof in, 0);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    if (nghttp2_session_mem_recv(c->session, in, (size_t)got) < 0)
        return 0;
    flush(c);
    return 1;
}

static void accept_all(int listener, int epoll, nghttp2_session_callbacks *calls) {
    static const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, STREAMS}, {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW}};
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct connection *c = malloc(sizeof *c);
        c->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        nghttp2_session_server_new(&c->session, calls, c);
        nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, 2);
        nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
        flush(c);
    }
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&where, sizeof where) != 0 || listen(fd, 1024) != 0) {
        perror("floor_h2");
        exit(1);
    }
    return fd;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: floor_h2 PORT\n");
        return 2;
    }
    nghttp2_session_callbacks *calls = make_callbacks();
    int listener = listen_on(atoi(argv[1])), epoll = epoll_create1(0);
    struct epoll_event ready[EVENTS], event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(epoll, ready, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct connection *c = ready[i].data.ptr;
            if (c == NULL) {
                accept_all(listener, epoll, calls);
            } else if (!serve(c)) {
                close(c->fd);
                nghttp2_session_del(c->session);
                free(c);
            }
        }
    }
}
