// The kernel's TCP as one end of bulk transfers: sends as fast as it can, or reads and counts.
//
//   bulk_peer listen ADDRESS PORT
//   bulk_peer connect ADDRESS PORT
//
// Who connects says by its first byte what it will do: 'u' sends from then on, 'd' reads what the listener sends.
// On stdin, each answered by one line of JSON, {"bytes":N,"streams":N,"us":T}: read so far, connections that stand,
// and when (CLOCK_MONOTONIC):
//   "up N", "down N"  (connect) opens N connections more
//   "read"
//   "close"           closes all. Ends when stdin does.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { kEvents = 64, kChunk = 256 * 1024, kFilesMax = 4096 };
enum { kFree, kUnknown, kReads, kSends, kListens };

static struct sockaddr_storage peer;
static socklen_t peer_bytes;
static int epoll_fd, modes[kFilesMax], streams;
static uint8_t chunk[kChunk];
static unsigned long long bytes_read;

static void die(const char* what) {
  fprintf(stderr, "bulk_peer: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void set_peer(const char* address, const char* port) {
  struct sockaddr_in* four = (struct sockaddr_in*)&peer;
  struct sockaddr_in6* six = (struct sockaddr_in6*)&peer;
  if (inet_pton(AF_INET, address, &four->sin_addr) == 1) {
    four->sin_family = AF_INET;
    four->sin_port = htons((uint16_t)atoi(port));
    peer_bytes = sizeof(*four);
  } else if (inet_pton(AF_INET6, address, &six->sin6_addr) == 1) {
    six->sin6_family = AF_INET6;
    six->sin6_port = htons((uint16_t)atoi(port));
    peer_bytes = sizeof(*six);
  } else {
    die(address);
  }
}

static void watch(int fd, int mode) {
  if (fd >= kFilesMax) die("too many connections");
  const uint32_t events = mode == kSends ? EPOLLOUT : EPOLLIN;
  struct epoll_event event = {.events = events, .data.fd = fd};
  const int operation = modes[fd] == kFree ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
  if (epoll_ctl(epoll_fd, operation, fd, &event) < 0) die("epoll_ctl");
  if (modes[fd] == kFree && mode != kListens) streams += 1;
  modes[fd] = mode;
}

static void forget(int fd) {
  if (modes[fd] != kListens) streams -= 1;
  modes[fd] = kFree;
  close(fd);
}

static int new_socket(void) {
  const int fd = socket(peer.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
  if (fd < 0) die("socket");
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  if (setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5) < 0) die("cubic");
  return fd;
}

static void open_streams(int count, char kind) {
  for (int i = 0; i < count; i++) {
    const int fd = new_socket();
    if (connect(fd, (struct sockaddr*)&peer, peer_bytes) < 0) die("connect");
    if (send(fd, &kind, 1, MSG_NOSIGNAL) != 1) die("send");
    watch(fd, kind == 'u' ? kSends : kReads);
  }
}

static void take_connection(int listener) {
  const int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  if (fd >= 0) watch(fd, kUnknown);
}

static void turn_one(int fd) {
  ssize_t done = -1;
  if (modes[fd] == kListens) {
    take_connection(fd);
    return;
  }
  if (modes[fd] == kUnknown) {
    char kind = 0;
    done = recv(fd, &kind, 1, MSG_DONTWAIT);
    if (done == 1) watch(fd, kind == 'u' ? kReads : kSends);
  } else if (modes[fd] == kReads) {
    done = recv(fd, chunk, sizeof(chunk), MSG_DONTWAIT);
    if (done > 0) bytes_read += (unsigned long long)done;
  } else if (modes[fd] == kSends) {
    done = send(fd, chunk, sizeof(chunk), MSG_DONTWAIT | MSG_NOSIGNAL);
  }
  if (done == 0 || (done < 0 && errno != EAGAIN && errno != EINTR)) forget(fd);
}

static void obey(const char* line) {
  int count = 0;
  if (sscanf(line, "up %d", &count) == 1) {
    open_streams(count, 'u');
  } else if (sscanf(line, "down %d", &count) == 1) {
    open_streams(count, 'd');
  } else if (strncmp(line, "close", 5) == 0) {
    for (int fd = 0; fd < kFilesMax; fd++)
      if (modes[fd] != kFree && modes[fd] != kListens) forget(fd);
  }
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  printf("{\"bytes\":%llu,\"streams\":%d,\"us\":%lld}\n", bytes_read, streams,
         now.tv_sec * 1000000ll + now.tv_nsec / 1000);
  fflush(stdout);
}

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  set_peer(argv[2], argv[3]);
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  if (strcmp(argv[1], "listen") == 0) {
    const int fd = new_socket();
    if (bind(fd, (struct sockaddr*)&peer, peer_bytes) < 0) die("bind");
    if (listen(fd, 1024) < 0) die("listen");
    watch(fd, kListens);
  }
  struct epoll_event input = {.events = EPOLLIN, .data.fd = 0};
  if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &input) < 0) die("stdin");
  printf("{\"ready\":true}\n");
  fflush(stdout);
  for (;;) {
    struct epoll_event events[kEvents];
    const int count = epoll_wait(epoll_fd, events, kEvents, -1);
    for (int i = 0; i < count; i++) {
      if (events[i].data.fd != 0) {
        if (modes[events[i].data.fd] != kFree) turn_one(events[i].data.fd);
        continue;
      }
      char line[64];
      if (!fgets(line, sizeof(line), stdin)) return 0;
      obey(line);
    }
  }
}
