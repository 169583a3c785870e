/* The files of open_loop.c: schedule, payloads and results. Numbers are little-endian, as on the machines it runs on. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { GROUPS = 16 };

struct __attribute__((packed)) planned {      /* a record of the schedule, by due time */
    uint64_t due_ns;        /* since the start */
    uint32_t payload;
};

struct __attribute__((packed)) request {      /* a record of the results, in the schedule's order */
    uint64_t due_ns;
    uint64_t taken_ns;      /* this tool came to it */
    uint64_t sent_ns;       /* its last byte left the session, 0: never; later when there is no free stream, or no window */
    uint64_t done_ns;       /* its stream was closed, 0: never */
    int32_t status;         /* grpc-status, -1: none came */
    uint32_t payload;
};

struct payload {            /* a framed message */
    uint8_t *bytes;
    size_t size;
    int group;
};

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void reject(const char *what, const char *why) {
    fprintf(stderr, "open_loop: %s: %s\n", what, why);
    exit(2);
}

/* The whole file, and its size. */
static void *contents(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0)
        fail(path);
    *size = (size_t)ftell(file);
    rewind(file);
    void *bytes = malloc(*size + 1);
    if (bytes == NULL || fread(bytes, 1, *size, file) != *size)
        fail(path);
    fclose(file);
    return bytes;
}

static struct request *read_schedule(const char *path, uint32_t payload_count, uint32_t *count) {
    size_t size;
    struct planned *planned = contents(path, &size);
    *count = (uint32_t)(size / sizeof *planned);
    if (*count == 0)
        reject(path, "an empty schedule");
    struct request *requests = calloc(*count, sizeof *requests);
    if (requests == NULL)
        fail(path);
    for (uint32_t i = 0; i < *count; i++) {
        if (planned[i].payload >= payload_count)
            reject(path, "a request without a payload");
        if (i > 0 && planned[i].due_ns < planned[i - 1].due_ns)
            reject(path, "not ordered by due time");
        requests[i] = (struct request){.due_ns = planned[i].due_ns, .status = -1, .payload = planned[i].payload};
    }
    free(planned);
    return requests;
}

/* Of an argument GROUP:PATH. */
static struct payload read_payload(const char *argument) {
    char *path;
    struct payload p = {.group = (int)strtol(argument, &path, 10)};
    if (*path != ':' || p.group < 0 || p.group >= GROUPS)
        reject(argument, "GROUP:PAYLOAD wanted, groups 0 to 15");
    p.bytes = contents(path + 1, &p.size);
    return p;
}

static void write_results(const char *path, const struct request *requests, uint32_t count) {
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(requests, sizeof *requests, count, file) != count || fclose(file) != 0)
        fail(path);
}
