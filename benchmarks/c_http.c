/* The limit of what an HTTP client can do: system calls, and of each answer the length and the count of its bytes.
 *
 *     c_http                                             prints the kinds of workload that it knows
 *     c_http KIND PORT SIZE CONNECTIONS SECONDS PATH     does it, prints one JSON object as client.py does
 *
 * It knows the answers of nginx only: a Content-Length in this spelling, no chunks, no interim answers.
 */
#define _GNU_SOURCE /* memmem */
#include "c_common.h"

enum { HEAD_BYTES = 8192 };

static const char *path;
static char request[HEAD_BYTES];
static size_t request_size;

typedef struct {
    int fd;
    char *memory; /* head and body of the answer */
    size_t filled, whole; /* `whole`: bytes of head and body; 0 while the head is not complete */
    double sent_at;
} Connection;

static void open_http(Connection *one) {
    one->fd = open_connection();
    one->memory = malloc(HEAD_BYTES + size);
    check(one->memory != NULL, "amount of memory");
}

static void ask(Connection *one) {
    one->filled = one->whole = 0;
    one->sent_at = now();
    send_all(one->fd, request, request_size);
}

/* Read once; whether the answer is whole now. */
static int read_answer(Connection *one) {
    static const char length[] = "\r\nContent-Length: ";
    one->filled += receive_some(one->fd, one->memory + one->filled, HEAD_BYTES + size - one->filled);
    if (!one->whole) {
        char *end = memmem(one->memory, one->filled, "\r\n\r\n", 4);
        if (!end)
            return 0;
        check(!memcmp(one->memory, "HTTP/1.1 200", 12), "status");
        char *field = memmem(one->memory, end - one->memory, length, sizeof length - 1);
        check(field != NULL, "head");
        one->whole = end + 4 - one->memory + atol(field + sizeof length - 1);
        check(one->whole <= HEAD_BYTES + size, "length");
    }
    return one->filled == one->whole;
}

static void exchange(Connection *one) {
    ask(one);
    while (!read_answer(one))
        ;
}

/* The first exchange of a connection: all of the answer is looked at. */
static void exchange_first(Connection *one) {
    open_http(one);
    exchange(one);
    if (!strcmp(path, "/"))
        for (size_t i = one->whole - size; i < one->whole; i++)
            check(one->memory[i] == 'x', "answer");
}

/* `count` tells the clock of one answer: its time, or its bytes. */
static void get_one(void (*count)(Connection *)) {
    Connection one = {0};
    exchange_first(&one);
    start();
    while (running()) {
        exchange(&one);
        count(&one);
    }
    stop();
}

static void count_time(Connection *one) { add_latency(now() - one->sent_at); }

static void count_bytes(Connection *one) {
    (void)one;
    operations += size;
}

#ifdef __linux__
static void get_many(void) {
    Connection *all = calloc(connections, sizeof *all);
    struct epoll_event events[64];
    int poll = epoll_create1(0), waiting = connections;
    for (int i = 0; i < connections; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        exchange_first(&all[i]);
        epoll_ctl(poll, EPOLL_CTL_ADD, all[i].fd, &event);
    }
    start();
    for (int i = 0; i < connections; i++)
        ask(&all[i]);
    while (waiting) {
        int ready = epoll_wait(poll, events, sizeof events / sizeof *events, -1);
        for (int i = 0; i < ready; i++) {
            Connection *one = events[i].data.ptr;
            if (!read_answer(one))
                continue;
            count_time(one);
            if (running())
                ask(one);
            else
                waiting--;
        }
    }
    stop();
}

static void get(void) { connections == 1 ? get_one(count_time) : get_many(); }
#else
static void get(void) {
    check(connections == 1, "number of connections: without epoll it can be only one");
    get_one(count_time);
}
#endif

static void get_bytes(void) {
    check(connections == 1, "number of connections");
    get_one(count_bytes);
}

static const Kind kinds[] = {{"get", get}, {"get_bytes", get_bytes}};

int main(int argc, char **argv) {
    size_t count = sizeof kinds / sizeof *kinds;
    if (argc != 7)
        return print_kinds(kinds, count);
    read_arguments(argv);
    path = argv[6];
    request_size = snprintf(
        request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: */*\r\n\r\n", path, port
    );
    return run_kind(kinds, count, argv[1]);
}
