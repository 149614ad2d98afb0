/* The limit: a blocking C client that receives pieces of a given size into one buffer.
 *
 *     recv_loop PORT PIECE_BYTES PIECES      prints one JSON object, as client.py does
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double seconds_of(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int main(int argc, char **argv) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    size_t piece;
    long pieces, i;
    char *memory;
    double wall, cpu;

    if (argc != 4)
        return 2;
    address.sin_port = htons((unsigned short)atoi(argv[1]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    piece = (size_t)atol(argv[2]);
    pieces = atol(argv[3]);
    memory = malloc(piece);
    if (memory == NULL || connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        return 1;
    wall = seconds_of(CLOCK_MONOTONIC);
    cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    for (i = 0; i < pieces; i++) {
        size_t filled = 0;
        while (filled < piece) {
            ssize_t count = recv(fd, memory + filled, piece - filled, 0);
            if (count <= 0)
                return 1;
            filled += (size_t)count;
        }
    }
    printf("{\"operations\": %ld, \"seconds\": %.9f, \"cpu_seconds\": %.9f}\n", pieces,
           seconds_of(CLOCK_MONOTONIC) - wall, seconds_of(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    return 0;
}
