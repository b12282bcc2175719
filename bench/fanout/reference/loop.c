// See loop.h.
#include "loop.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

struct loop loop_start(int argc, char** argv) {
  struct sockaddr_in here = {.sin_family = AF_INET}, there = {.sin_family = AF_INET};
  const int buffer = 4 << 20;
  if (argc != 5 || inet_pton(AF_INET, argv[2], &there.sin_addr) != 1) {
    fprintf(stderr, "usage: %s PORT ADDRESS FIRST_PORT RECEIVERS\n", argv[0]);
    exit(2);
  }
  struct loop loop = {.fd = socket(AF_INET, SOCK_DGRAM, 0), .count = atoi(argv[4])};
  here.sin_port = htons((uint16_t)atoi(argv[1]));
  if (loop.fd < 0 || bind(loop.fd, (struct sockaddr*)&here, sizeof(here)) < 0) {
    perror("bind");
    exit(1);
  }
  setsockopt(loop.fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer));
  setsockopt(loop.fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
  loop.receivers = calloc((size_t)loop.count, sizeof(*loop.receivers));
  if (loop.receivers == NULL) exit(1);
  for (int i = 0; i < loop.count; i++) {
    loop.receivers[i] = there;
    loop.receivers[i].sin_port = htons((uint16_t)(atoi(argv[3]) + 2 * i));
  }
  printf("{\"ready\":\"%s\"}\n", argv[0]);
  fflush(stdout);
  return loop;
}
