// Many TCP connections of the kernel to itself, over many loopback addresses: what they cost it.
//
//   herd COUNT PORT
//
// Connects, accepts, sends 64 bytes and has them sent back, one connection after the other; all stay open. Says
// {"open":N,"seconds":S} when they do, asks each again and says {"asked":N} for a line on stdin, ends at the next.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { kBytes = 64, kPerAddress = 20000 };

static void die(const char* what) {
  fprintf(stderr, "herd: %s: %s\n", what, strerror(errno));
  exit(1);
}

static double now_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void pass(int from, int to) {
  char bytes[kBytes];
  memset(bytes, 'x', sizeof(bytes));
  if (send(from, bytes, sizeof(bytes), MSG_NOSIGNAL) != kBytes) die("send");
  if (recv(to, bytes, sizeof(bytes), MSG_WAITALL) != kBytes) die("recv");
}

static void exchange(const int* pair) {
  pass(pair[0], pair[1]);
  pass(pair[1], pair[0]);
}

static int (*open_all(int count, int port))[2] {
  int(*pairs)[2] = malloc((size_t)count * sizeof(*pairs));
  if (!pairs) die("malloc");
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  if (bind(listener, (struct sockaddr*)&at, sizeof(at)) < 0) die("bind");
  if (listen(listener, 16) < 0) die("listen");
  for (int i = 0; i < count; i++) {
    at.sin_addr.s_addr = htonl(0x7f000001u + (uint32_t)(i / kPerAddress));
    pairs[i][0] = socket(AF_INET, SOCK_STREAM, 0);
    if (pairs[i][0] < 0) die("socket");
    if (connect(pairs[i][0], (struct sockaddr*)&at, sizeof(at)) < 0) die("connect");
    pairs[i][1] = accept(listener, NULL, NULL);
    if (pairs[i][1] < 0) die("accept");
    exchange(pairs[i]);
  }
  return pairs;
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const int count = atoi(argv[1]);
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) < 0) die("RLIMIT_NOFILE");
  const double begun = now_seconds();
  int(*pairs)[2] = open_all(count, atoi(argv[2]));
  printf("{\"open\":%d,\"seconds\":%.6f}\n", count, now_seconds() - begun);
  fflush(stdout);
  char line[16];
  if (!fgets(line, sizeof(line), stdin)) return 0;
  for (int i = 0; i < count; i++) exchange(pairs[i]);
  printf("{\"asked\":%d}\n", count);
  fflush(stdout);
  while (fgets(line, sizeof(line), stdin)) {
  }
  return 0;
}
