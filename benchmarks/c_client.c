/* The limit of what a client can do: system calls and the least work between them, no TLS.
 *
 *     c_client                                        prints the kinds of workload that it knows
 *     c_client KIND PORT SIZE CONNECTIONS SECONDS     does it, prints one JSON object as client.py does
 */
#include "c_common.h"

/* As in workloads.py. */
enum { LINE_BYTES = 64, HEADER_BYTES = 4 };
static const char last_message[] = "how many?\n";

static char line[LINE_BYTES];
static char *message; /* lines, `size` bytes */

/* ---- Workloads ---- */

static void receive_exactly(int fd, char *memory, size_t count) {
    for (size_t filled = 0; filled < count;)
        filled += receive_some(fd, memory + filled, count - filled);
}

/* Reads as much as comes and hands each message to nobody; `length_of` says how long the first of `n` bytes is, or 0. */
static void receive_messages(size_t (*length_of)(const char *memory, size_t n)) {
    char *memory = malloc(2 * READ_BYTES), *next = memory, *end = memory;
    int fd = open_connection();
    start();
    while (running()) {
        /* The unfinished message to the front. */
        memmove(memory, next, end - next);
        end = memory + (end - next);
        next = memory;
        end += receive_some(fd, end, READ_BYTES);
        for (size_t length; (length = length_of(next, end - next)); next += length) {
            check(next[length - 1] == '\n', "message");
            operations++;
        }
    }
    stop();
}

static size_t line_length(const char *memory, size_t n) {
    const char *end = memchr(memory, '\n', n);
    return end ? end - memory + 1 : 0;
}

static size_t record_length(const char *memory, size_t n) {
    unsigned header;
    if (n < HEADER_BYTES)
        return 0;
    memcpy(&header, memory, HEADER_BYTES);
    size_t length = HEADER_BYTES + ntohl(header);
    return length <= n ? length : 0;
}

static void receive_line(void) { receive_messages(line_length); }
static void receive_record(void) { receive_messages(record_length); }

static void receive_bulk(void) {
    char *memory = malloc(size);
    int fd = open_connection();
    start();
    while (running()) {
        receive_exactly(fd, memory, size);
        operations += size;
    }
    stop();
    check(!memcmp(memory, message, size), "bytes");
}

static void receive_stream(void) {
    char *memory = malloc(READ_BYTES);
    int fd = open_connection();
    start();
    while (running())
        operations += receive_some(fd, memory, 65536);
    stop();
}

static void send_messages(void) {
    unsigned char answer[8];
    unsigned long long counted = 0;
    int fd = open_connection();
    start();
    while (running()) {
        send_all(fd, message, size);
        operations++;
    }
    stop();
    send_all(fd, last_message, sizeof last_message - 1);
    receive_exactly(fd, (char *)answer, sizeof answer);
    for (size_t i = 0; i < sizeof answer; i++)
        counted = counted << 8 | answer[i];
    check(counted == operations * size, "count of bytes");
}

static void echo_one(void) {
    char *answer = malloc(size);
    int fd = open_connection();
    start();
    while (running()) {
        double sent_at = now();
        send_all(fd, message, size);
        receive_exactly(fd, answer, size);
        add_latency(now() - sent_at);
    }
    stop();
    check(!memcmp(answer, message, size), "answer");
}

#ifdef __linux__
static void echo_many(void) {
    struct Connection {
        int fd;
        size_t filled;
        double sent_at;
    } *all = calloc(connections, sizeof *all);
    struct epoll_event events[64];
    char *answer = malloc(size);
    int poll = epoll_create1(0), waiting = connections;
    for (int i = 0; i < connections; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        all[i].fd = open_connection();
        epoll_ctl(poll, EPOLL_CTL_ADD, all[i].fd, &event);
    }
    start();
    for (int i = 0; i < connections; i++) {
        all[i].sent_at = now();
        send_all(all[i].fd, message, size);
    }
    while (waiting) {
        int ready = epoll_wait(poll, events, sizeof events / sizeof *events, -1);
        for (int i = 0; i < ready; i++) {
            struct Connection *one = events[i].data.ptr;
            /* One place for the answers of all: what lies there after the last byte may be parts of several. */
            one->filled += receive_some(one->fd, answer + one->filled, size - one->filled);
            if (one->filled < size)
                continue;
            double received_at = now();
            add_latency(received_at - one->sent_at);
            one->filled = 0;
            one->sent_at = received_at;
            if (received_at - begun < limit)
                send_all(one->fd, message, size);
            else
                waiting--;
        }
    }
    stop();
    check(!memcmp(answer, message, size), "answer");
}

static void echo(void) { connections == 1 ? echo_one() : echo_many(); }
#else
static void echo(void) {
    check(connections == 1, "number of connections: without epoll it can be only one");
    echo_one();
}
#endif

static void connect_close(void) {
    char answer[LINE_BYTES];
    start();
    while (running()) {
        double opened_at = now();
        int fd = open_connection();
        send_all(fd, line, sizeof line);
        receive_exactly(fd, answer, sizeof answer);
        close(fd);
        add_latency(now() - opened_at);
    }
    stop();
    check(!memcmp(answer, line, sizeof line), "answer");
}

static const Kind kinds[] = {
    {"receive_line", receive_line},     {"receive_lines", receive_line},     {"receive_record", receive_record},
    {"receive_records", receive_record}, {"receive_bulk", receive_bulk},     {"receive_stream", receive_stream},
    {"send", send_messages},            {"echo", echo},                      {"connect_close", connect_close},
};

int main(int argc, char **argv) {
    size_t count = sizeof kinds / sizeof *kinds;
    if (argc != 6)
        return print_kinds(kinds, count);
    read_arguments(argv);
    memset(line, 'x', sizeof line);
    line[sizeof line - 1] = '\n';
    message = malloc(size);
    for (size_t i = 0; i < size; i += sizeof line)
        memcpy(message + i, line, sizeof line);
    return run_kind(kinds, count, argv[1]);
}
