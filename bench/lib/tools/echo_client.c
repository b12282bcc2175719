// The kernel's TCP as the client of an echo server: many connections, one request outstanding on each, and the
// time of every round trip.
//
//   echo_client ADDRESS PORT BYTES
//
// On stdin, each answered by one line of JSON:
//   "open N"         makes it N connections: {"open":N,"failed":N,"seconds":S}
//   "run MS"         as many requests as come back, for MS milliseconds:
//                    {"requests":N,"seconds":S,"p50":US,"p99":US,"max":US,"broken":N}
//   "pace MS RATE"   RATE requests a second, evenly, on connections that are not waiting; the round trip counts from
//                    when the request was due. The answer has "skipped" too: due while every connection waited
//   "close"          closes all. Ends when stdin does.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
  kEvents = 256,
  kOpeningMax = 256,
  kBytesMax = 65536,
  kSubBuckets = 128,
  kBuckets = 64 * kSubBuckets
};
enum { kConnecting, kResting, kWaiting, kBroken };

struct connection {
  int fd, state, missing;  // bytes of the reply that have not come
  int64_t asked_ns;
};

static struct sockaddr_storage server;
static socklen_t server_bytes;
static int request_bytes, epoll_fd;
static struct connection* connections;
static int connection_count, opening, failed, broken, waiting;
static int* resting;  // a stack of those that may be asked
static int resting_count;
static uint8_t request[kBytesMax], reply[kBytesMax];
static unsigned long long requests, histogram[kBuckets];
static int64_t slowest_ns;
static int running, pacing;

static int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000ll + now.tv_nsec;
}

static void die(const char* what) {
  fprintf(stderr, "echo_client: %s: %s\n", what, strerror(errno));
  exit(1);
}

// Buckets whose width is below 1 % of their value.
static int bucket_of(int64_t ns) {
  if (ns < 2 * kSubBuckets) return (int)(ns < 0 ? 0 : ns);
  const int shift = 63 - __builtin_clzll((unsigned long long)ns) - 7;
  return (shift + 1) * kSubBuckets + (int)(ns >> shift) - kSubBuckets;
}

static double bucket_us(int bucket) {
  if (bucket < 2 * kSubBuckets) return bucket / 1e3;
  const int shift = bucket / kSubBuckets - 1;
  return (double)((int64_t)(kSubBuckets + bucket % kSubBuckets) << shift) / 1e3;
}

static double share_us(double share) {
  const unsigned long long rank = (unsigned long long)(share * (double)requests);
  unsigned long long seen = 0;
  for (int i = 0; i < kBuckets; i++) {
    seen += histogram[i];
    if (seen > rank) return bucket_us(i);
  }
  return 0;
}

static void set_server(const char* address, const char* port) {
  struct sockaddr_in* four = (struct sockaddr_in*)&server;
  struct sockaddr_in6* six = (struct sockaddr_in6*)&server;
  if (inet_pton(AF_INET, address, &four->sin_addr) == 1) {
    four->sin_family = AF_INET;
    four->sin_port = htons((uint16_t)atoi(port));
    server_bytes = sizeof(*four);
  } else if (inet_pton(AF_INET6, address, &six->sin6_addr) == 1) {
    six->sin6_family = AF_INET6;
    six->sin6_port = htons((uint16_t)atoi(port));
    server_bytes = sizeof(*six);
  } else {
    die(address);
  }
}

static void open_one(int index) {
  struct connection* one = &connections[index];
  one->fd = socket(server.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (one->fd < 0) die("socket");
  const int yes = 1;
  setsockopt(one->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
  one->state = kConnecting;
  opening += 1;
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.u32 = (uint32_t)index};
  if (connect(one->fd, (struct sockaddr*)&server, server_bytes) < 0 && errno != EINPROGRESS)
    die("connect");
  if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, one->fd, &event) < 0) die("epoll_ctl");
}

static void break_one(struct connection* one) {
  if (one->state == kConnecting) opening -= 1, failed += 1;
  if (one->state == kWaiting) waiting -= 1;
  if (one->state != kConnecting) broken += 1;
  one->state = kBroken;
  close(one->fd);
  one->fd = -1;
}

static void ask(struct connection* one, int64_t due_ns) {
  if (one->state == kBroken) return;
  one->asked_ns = due_ns;
  one->missing = request_bytes;
  one->state = kWaiting;
  waiting += 1;
  if (send(one->fd, request, (size_t)request_bytes, MSG_NOSIGNAL) != request_bytes) break_one(one);
}

static void answered(struct connection* one, int index) {
  const int64_t now = now_ns(), took = now - one->asked_ns;
  waiting -= 1;
  one->state = kResting;
  if (running) {
    requests += 1;
    histogram[bucket_of(took)] += 1;
    if (took > slowest_ns) slowest_ns = took;
  }
  if (running && !pacing)
    ask(one, now);
  else
    resting[resting_count++] = index;
}

static void read_one(struct connection* one, int index) {
  while (one->state == kWaiting || one->state == kResting) {
    const ssize_t got = recv(one->fd, reply, sizeof(reply), 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0 || one->state == kResting || got > one->missing) {
      break_one(one);
      return;
    }
    one->missing -= (int)got;
    if (one->missing > 0) continue;
    answered(one, index);
    return;  // what is asked now cannot have been answered: an event will tell
  }
}

static void turn(int timeout_ms) {
  struct epoll_event events[kEvents];
  const int count = epoll_wait(epoll_fd, events, kEvents, timeout_ms);
  for (int i = 0; i < count; i++) {
    const int index = (int)events[i].data.u32;
    struct connection* one = &connections[index];
    if (one->state == kConnecting) {
      int error = 0;
      socklen_t bytes = sizeof(error);
      getsockopt(one->fd, SOL_SOCKET, SO_ERROR, &error, &bytes);
      if (error != 0 || (events[i].events & (EPOLLERR | EPOLLHUP))) {
        errno = error;
        break_one(one);
        continue;
      }
      one->state = kResting;
      opening -= 1;
      resting[resting_count++] = index;
      struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u32 = (uint32_t)index};
      epoll_ctl(epoll_fd, EPOLL_CTL_MOD, one->fd, &event);
    } else {
      read_one(one, index);
    }
  }
}

static void open_to(int wanted) {
  const int64_t begun = now_ns();
  connections = realloc(connections, (size_t)wanted * sizeof(*connections));
  resting = realloc(resting, (size_t)wanted * sizeof(*resting));
  if (!connections || !resting) die("realloc");
  while (connection_count < wanted || opening > 0) {
    while (connection_count < wanted && opening < kOpeningMax) open_one(connection_count++);
    turn(20);
  }
  printf("{\"open\":%d,\"failed\":%d,\"seconds\":%.6f}\n", connection_count - failed, failed,
         (double)(now_ns() - begun) / 1e9);
}

static void reset_figures(void) {
  requests = 0;
  slowest_ns = 0;
  memset(histogram, 0, sizeof(histogram));
}

static void drain(void) {
  running = 0;
  for (const int64_t last = now_ns() + 5000000000ll; waiting > 0 && now_ns() < last;) turn(20);
}

static void tell(int64_t begun, int64_t ended, unsigned long long skipped) {
  printf(
      "{\"requests\":%llu,\"seconds\":%.6f,\"p50\":%.2f,\"p99\":%.2f,\"max\":%.2f,\"broken\":%d,",
      requests, (double)(ended - begun) / 1e9, share_us(0.5), share_us(0.99),
      (double)slowest_ns / 1e3, broken);
  printf("\"unanswered\":%d,\"skipped\":%llu}\n", waiting, skipped);
}

static void run(int ms) {
  reset_figures();
  const int64_t begun = now_ns(), end = begun + ms * 1000000ll;
  running = 1;
  pacing = 0;
  while (resting_count > 0) ask(&connections[resting[--resting_count]], now_ns());
  while (now_ns() < end) turn(5);
  const int64_t ended = now_ns();
  drain();
  tell(begun, ended, 0);
}

static void pace(int ms, double rate) {
  reset_figures();
  const int64_t begun = now_ns(), end = begun + ms * 1000000ll;
  unsigned long long due = 0, skipped = 0;
  running = pacing = 1;
  for (int64_t now; (now = now_ns()) < end;) {
    for (int64_t at; (at = begun + (int64_t)((double)due * 1e9 / rate)) <= now; due++) {
      if (resting_count == 0) {
        skipped += 1;
        continue;
      }
      // A different one each time: the stack's bottom is as good as its top.
      const int pick = (int)(due % (unsigned)resting_count), index = resting[pick];
      resting[pick] = resting[--resting_count];
      ask(&connections[index], at);
    }
    turn(0);
  }
  const int64_t ended = now_ns();
  drain();
  tell(begun, ended, skipped);
}

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  prctl(PR_SET_TIMERSLACK, 1);
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  set_server(argv[1], argv[2]);
  request_bytes = atoi(argv[3]);
  if (request_bytes < 1 || request_bytes > kBytesMax) return 2;
  memset(request, 'x', sizeof(request));
  request[request_bytes - 1] = '\n';
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  printf("{\"ready\":true}\n");
  fflush(stdout);
  for (char line[128]; fgets(line, sizeof(line), stdin); fflush(stdout)) {
    int number = 0;
    double rate = 0;
    if (sscanf(line, "open %d", &number) == 1) {
      open_to(number);
    } else if (sscanf(line, "run %d", &number) == 1) {
      run(number);
    } else if (sscanf(line, "pace %d %lf", &number, &rate) == 2) {
      pace(number, rate);
    } else {
      for (int i = 0; i < connection_count; i++)
        if (connections[i].fd >= 0) close(connections[i].fd);
      connection_count = resting_count = failed = broken = waiting = 0;
      printf("{\"open\":0}\n");
    }
  }
  return 0;
}
