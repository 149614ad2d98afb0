/* The other end of the echo workloads without TLS: what server.py's Echo does, faster than any client can ask.
 *
 *     c_echo      prints its port, sends everything back until its standard input closes; never sleeps
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_BYTES = 64 * 1024 };

struct Connection {
    int fd;
    size_t sent, size; /* of what could not be sent at once; meanwhile nothing is read */
    char unsent[READ_BYTES];
};

static int queue;
static char data[READ_BYTES];

static void watch(int operation, struct Connection *one, unsigned events) {
    struct epoll_event event = {.events = events, .data.ptr = one};
    if (epoll_ctl(queue, operation, one->fd, &event)) {
        perror("epoll_ctl");
        exit(1);
    }
}

static void accept_one(int listener) {
    int on = 1;
    /* Untouched pages of it take no memory. */
    struct Connection *one = calloc(1, sizeof *one);
    if (one == NULL || (one->fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) < 0) {
        perror("accept");
        exit(1);
    }
    setsockopt(one->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    watch(EPOLL_CTL_ADD, one, EPOLLIN);
}

static void drop(struct Connection *one) {
    close(one->fd);
    free(one);
}

static void answer(struct Connection *one) {
    ssize_t received = recv(one->fd, data, sizeof data, 0);
    if (received <= 0) {
        drop(one);
        return;
    }
    ssize_t sent = send(one->fd, data, received, MSG_NOSIGNAL);
    if (sent < received) {
        if (sent < 0)
            sent = 0; /* full, or broken: then the next send says so again */
        one->sent = 0;
        one->size = received - sent;
        memcpy(one->unsent, data + sent, one->size);
        watch(EPOLL_CTL_MOD, one, EPOLLOUT);
    }
}

static void send_rest(struct Connection *one) {
    ssize_t sent = send(one->fd, one->unsent + one->sent, one->size - one->sent, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        drop(one);
    else if (sent > 0 && (one->sent += sent) == one->size)
        watch(EPOLL_CTL_MOD, one, EPOLLIN);
}

int main(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    struct rlimit files;
    struct epoll_event events[64];
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    queue = epoll_create1(0);
    struct Connection listener = {.fd = socket(AF_INET, SOCK_STREAM, 0)}, input = {.fd = STDIN_FILENO};
    if (bind(listener.fd, (struct sockaddr *)&address, size) || listen(listener.fd, 4096)) {
        perror("listen");
        return 1;
    }
    getsockname(listener.fd, (struct sockaddr *)&address, &size);
    watch(EPOLL_CTL_ADD, &listener, EPOLLIN);
    watch(EPOLL_CTL_ADD, &input, EPOLLIN);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int ready = epoll_wait(queue, events, sizeof events / sizeof *events, 0);
        for (int i = 0; i < ready; i++) {
            struct Connection *one = events[i].data.ptr;
            if (one == &input)
                return 0;
            if (one == &listener)
                accept_one(listener.fd);
            else if (events[i].events & EPOLLOUT)
                send_rest(one);
            else
                answer(one);
        }
    }
}
