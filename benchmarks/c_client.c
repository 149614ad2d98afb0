/* The limit of what a client can do: blocking sockets, nothing else.
 *
 *     c_client                                        prints the kinds of workload that it knows
 *     c_client KIND PORT SIZE CONNECTIONS SECONDS     does it, prints one JSON object
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double seconds_of(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

static int open_connection(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address)) {
        perror("connect");
        exit(1);
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static void receive_exactly(int fd, char *memory, size_t size) {
    for (size_t filled = 0; filled < size;) {
        ssize_t n = recv(fd, memory + filled, size - filled, 0);
        if (n <= 0) {
            perror("recv");
            exit(1);
        }
        filled += n;
    }
}

int main(int argc, char **argv) {
    if (argc != 6) {
        puts("receive_bulk");
        return 0;
    }
    int port = atoi(argv[2]);
    size_t size = atol(argv[3]);
    double limit = atof(argv[5]);
    char *memory = malloc(size);
    int fd = open_connection(port);
    double begun = seconds_of(CLOCK_MONOTONIC), cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    unsigned long long operations = 0;
    while (seconds_of(CLOCK_MONOTONIC) - begun < limit) {
        receive_exactly(fd, memory, size);
        operations += size;
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"operations\": %llu, \"seconds\": %f, \"cpu_seconds\": %f, \"p50\": null, \"p99\": null, "
           "\"bytes_per_operation\": 0, \"peak_memory_bytes\": %ld}\n",
           operations, seconds_of(CLOCK_MONOTONIC) - begun, seconds_of(CLOCK_PROCESS_CPUTIME_ID) - cpu, usage.ru_maxrss * 1024L);
    return 0;
}
