/* What the core needs of the operating system: a clock and three system calls. */
#ifndef PEPPERPY_NETWORK_PLATFORM_H
#define PEPPERPY_NETWORK_PLATFORM_H

#include <Python.h>
#include <time.h>

/* What input_state() returns. */
#define NO_INPUT 0
#define INPUT_WAITS 1
#define STREAM_ENDED 2

#define DIRECT_SEND_MAX_PIECES 64 /* well under IOV_MAX, 1024 on Linux, macOS and the BSDs */

typedef struct {
    const char *base;
    size_t length;
} send_piece;

/* Seconds on the clock of time.monotonic(). Linux has one that is several times cheaper to read, exact to a timer tick
   (1 to 10 ms). Elsewhere CPython is asked: which clock it takes depends on the system and on its version. macOS's
   CLOCK_MONOTONIC goes on while the machine sleeps, unlike CPython's; Windows' became another one with 3.13. */
static inline double coarse_monotonic(void) {
#ifdef CLOCK_MONOTONIC_COARSE
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
#elif PY_VERSION_HEX >= 0x030d0000
    PyTime_t now;

    (void)PyTime_MonotonicRaw(&now);
    return PyTime_AsSecondsDouble(now);
#else
    return _PyTime_AsSecondsDouble(_PyTime_GetMonotonicClock());
#endif
}

#ifdef _WIN32

/* Sockets of the proactor are written by their transport only, so this always reports "would block". */
static inline long long direct_send(int fd, const send_piece *pieces, int count) {
    (void)fd, (void)pieces, (void)count;
    return -1;
}

static inline int direct_send_error(void) { return 0; }

/* The proactor reads all the time, so nothing waits in the kernel. */
static inline int has_input(int fd) {
    (void)fd;
    return 0;
}

static inline int input_state(int fd) {
    (void)fd;
    return NO_INPUT;
}

#else

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* macOS has none; CPython ignores SIGPIPE in the whole process */
#endif

/* Sends as much as the kernel takes now, without waiting. Returns the bytes taken, or -1 with errno set. */
static inline long long direct_send(int fd, const send_piece *pieces, int count) {
    struct iovec vectors[DIRECT_SEND_MAX_PIECES];
    struct msghdr message = {0};
    ssize_t sent;
    int i;

    if (count == 1) {
        do
            sent = send(fd, pieces[0].base, pieces[0].length, MSG_DONTWAIT | MSG_NOSIGNAL);
        while (sent < 0 && errno == EINTR);
        return sent;
    }
    for (i = 0; i < count; i++) {
        vectors[i].iov_base = (void *)pieces[i].base;
        vectors[i].iov_len = pieces[i].length;
    }
    message.msg_iov = vectors;
    message.msg_iovlen = count;
    do
        sent = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent;
}

/* errno of the last direct_send; 0 if it only says that the kernel takes nothing now. */
static inline int direct_send_error(void) {
    switch (errno) {
    case EAGAIN:
#if EWOULDBLOCK != EAGAIN
    case EWOULDBLOCK:
#endif
        return 0;
    default:
        return errno;
    }
}

/* Which of these events have come; an error (POLLERR) is always asked for. None for -1. A signal interrupts poll() even
   where it waits for nothing: it fails with EINTR then, and says nothing of the descriptor. */
static inline int seen_events(int fd, short events) {
    struct pollfd one = {fd, events, 0};

    while (fd >= 0 && poll(&one, 1, 0) < 0 && errno == EINTR)
        ;
    return one.revents;
}

/* Whether bytes, the end of the stream or an error wait to be read; not for -1. */
static inline int has_input(int fd) { return seen_events(fd, POLLIN) != 0; }

/* Linux says by an event of its own that the peer has ended its stream. Elsewhere its end counts as input that waits. */
#ifndef POLLRDHUP
#define POLLRDHUP 0
#endif

/* As has_input(), and whether the peer has ended its stream. */
static inline int input_state(int fd) {
    int seen = seen_events(fd, POLLIN | POLLRDHUP);

    if (seen == 0)
        return NO_INPUT;
    return seen & (POLLHUP | POLLERR | POLLRDHUP) ? STREAM_ENDED : INPUT_WAITS;
}

#endif
#endif
