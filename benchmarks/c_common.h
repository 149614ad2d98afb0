/* What the C clients share: the arguments, the clock, the report, sockets that block. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/epoll.h>
#endif

/* One read takes at most this, as in asyncio and uvloop. */
enum { READ_BYTES = 256 * 1024 };

static int port, connections;
static size_t size;
static double limit;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void check(int right, const char *what) {
    if (!right) {
        fprintf(stderr, "wrong %s\n", what);
        exit(1);
    }
}

/* ---- The clock: as `Clock` in client.py ---- */

static unsigned long long operations;
static double *latencies;
static size_t measured, room;
static double begun, begun_cpu, elapsed, elapsed_cpu;

static double seconds_of(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

static double now(void) { return seconds_of(CLOCK_MONOTONIC); }

static void start(void) {
    begun = now();
    begun_cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
}

static int running(void) { return now() - begun < limit; }

static void stop(void) {
    elapsed = now() - begun;
    elapsed_cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID) - begun_cpu;
}

static void add_latency(double seconds) {
    if (measured == room) {
        room = room ? 2 * room : 1024;
        latencies = realloc(latencies, room * sizeof *latencies);
        check(latencies != NULL, "amount of memory");
    }
    latencies[measured++] = seconds;
    operations = measured;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* As `peak_memory()` in client.py. */
static long peak_memory(void) {
    char text[256];
    long kibibytes;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(text, sizeof text, status))
        if (sscanf(text, "VmHWM: %ld", &kibibytes) == 1)
            return kibibytes * 1024;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}

static void report(void) {
    check(operations > 0, "number of operations");
    printf("{\"operations\": %llu, \"seconds\": %f, \"cpu_seconds\": %f, \"bytes_per_operation\": 0, "
           "\"peak_memory_bytes\": %ld, ",
           operations, elapsed, elapsed_cpu, peak_memory());
    if (measured) {
        qsort(latencies, measured, sizeof *latencies, ascending);
        printf("\"p50\": %.9f, \"p99\": %.9f}\n", latencies[measured / 2], latencies[measured * 99 / 100]);
    } else
        puts("\"p50\": null, \"p99\": null}");
}

/* ---- Sockets ---- */

static int open_connection(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address))
        fail("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static size_t receive_some(int fd, char *memory, size_t most) {
    ssize_t n = recv(fd, memory, most, 0);
    if (n <= 0)
        fail("recv");
    return n;
}

static void send_all(int fd, const char *memory, size_t count) {
    for (size_t sent = 0; sent < count;) {
        ssize_t n = send(fd, memory + sent, count - sent, 0);
        if (n < 0)
            fail("send");
        sent += n;
    }
}

/* ---- The command line: KIND PORT SIZE CONNECTIONS SECONDS, and PATH over HTTP ---- */

typedef struct {
    const char *name;
    void (*run)(void);
} Kind;

static void read_arguments(char **argv) {
    port = atoi(argv[2]);
    size = atol(argv[3]);
    connections = atoi(argv[4]);
    limit = atof(argv[5]);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

static int run_kind(const Kind *kinds, size_t count, const char *name) {
    for (size_t i = 0; i < count; i++)
        if (!strcmp(name, kinds[i].name)) {
            kinds[i].run();
            report();
            return 0;
        }
    fprintf(stderr, "no such kind: %s\n", name);
    return 1;
}

static int print_kinds(const Kind *kinds, size_t count) {
    for (size_t i = 0; i < count; i++)
        puts(kinds[i].name);
    return 0;
}
