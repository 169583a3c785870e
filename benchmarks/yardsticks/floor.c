/* F, the floor of HTTP: what the kernel asks for a request. One epoll thread; one recv and one send a request; the answer
 * is always the same. It looks for the end of the head and for Content-Length, and for nothing else: not a server.
 * Build: cc -O2 -D_GNU_SOURCE -o floor floor.c     Run: ./floor PORT     Load it with the wrk call that loads the server. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BODY = 200,         /* bytes: about what an answer with ten floats and its JSON has */
    ROOM = 1 << 16,     /* the longest request */
    EVENTS = 256,
};

struct connection {
    int fd;
    size_t used;
    char bytes[ROOM];
};

static char answer[512];
static size_t answer_size;

/* The value of Content-Length in head[0..size), 0 when there is none. */
static size_t content_length(const char *head, size_t size) {
    static const char name[] = "\ncontent-length:";
    for (size_t at = 0; at + sizeof name < size; at++) {
        if (head[at] == '\n' && strncasecmp(head + at, name, sizeof name - 1) == 0)
            return strtoul(head + at + sizeof name - 1, NULL, 10);
    }
    return 0;
}

/* Bytes of the first request when all of it is there, else 0. */
static size_t whole_request(const struct connection *c) {
    const char *end = memmem(c->bytes, c->used, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    size_t head = (size_t)(end - c->bytes) + 4;
    size_t size = head + content_length(c->bytes, head);
    return size <= c->used ? size : 0;
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&where, sizeof where) != 0 || listen(fd, 1024) != 0) {
        perror("floor");
        exit(1);
    }
    return fd;
}

static void accept_all(int listener, int epoll) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct connection *c = malloc(sizeof *c);
        c->fd = fd;
        c->used = 0;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

/* Answers what has come; 0 when the connection is over. */
static int serve(struct connection *c) {
    ssize_t got = recv(c->fd, c->bytes + c->used, ROOM - c->used, 0);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    c->used += (size_t)got;
    for (size_t size; (size = whole_request(c)) > 0;) {
        if (send(c->fd, answer, answer_size, MSG_NOSIGNAL) != (ssize_t)answer_size)
            return 0;
        c->used -= size;
        memmove(c->bytes, c->bytes + size, c->used);
    }
    return c->used < ROOM;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: floor PORT\n");
        return 2;
    }
    answer_size = (size_t)snprintf(answer, sizeof answer,
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n%*s", BODY, BODY, "x");
    int listener = listen_on(atoi(argv[1])), epoll = epoll_create1(0);
    struct epoll_event ready[EVENTS], event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(epoll, ready, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct connection *c = ready[i].data.ptr;
            if (c == NULL) {
                accept_all(listener, epoll);
            } else if (!serve(c)) {
                close(c->fd);
                free(c);
            }
        }
    }
}
