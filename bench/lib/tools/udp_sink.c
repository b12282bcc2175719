// The UDP receivers of a bench: N port pairs that cost next to nothing, a few of them real as
// samples.
//
//   udp_sink tcx INTERFACE FIRST_PORT PORTS SAMPLE_PORT...     counts and drops in a BPF program at
//   ingress udp_sink socket ADDRESS FIRST_PORT PORTS SAMPLE_PORT...    one socket a port, whose
//   filter drops everything
//
// RTP ports are the even ones; the odd ones (RTCP) are received and not counted. On stdin: "reset"
// forgets what the samples saw, "read" prints one JSON line. Ends when stdin does. Knows nothing of
// the server.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "samples.h"
#include "tcx_counter.h"

enum { kMaxPorts = 8192, kMaxSamples = 16 };

static struct sample samples[kMaxSamples];
static int sample_sockets[kMaxSamples];
static int sample_ports[kMaxSamples];
static int sample_count;
static struct delays delays;
static struct tcx_port* tcx_ports;  // tcx mode
static int sinks[kMaxPorts];        // socket mode: descriptors, -1 for a sample's port
static int first_port, port_count;

static void die(const char* what) {
  fprintf(stderr, "udp_sink: %s: %s\n", what, strerror(errno));
  exit(1);
}

static int bind_udp(const char* address, int port) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  if (inet_pton(AF_INET, address, &at.sin_addr) != 1) die("address");
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  if (fd < 0) die("socket");
  if (bind(fd, (struct sockaddr*)&at, sizeof(at)) < 0) {
    fprintf(stderr, "udp_sink: port %d: %s\n", port, strerror(errno));
    exit(1);
  }
  return fd;
}

static int is_sample(int port) {
  for (int i = 0; i < sample_count; i++)
    if (sample_ports[i] == port) return 1;
  return 0;
}

static void open_samples(const char* address) {
  const int on = 1, buffer = 4 << 20;
  for (int i = 0; i < sample_count; i++) {
    const int fd = bind_udp(address, sample_ports[i]);
    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer));
    sample_sockets[i] = fd;
    sample_reset(&samples[i]);
  }
}

// A filter that accepts zero bytes: the kernel drops the packet at the socket and counts it there.
static void open_sinks(const char* address) {
  struct sock_filter code[] = {{BPF_RET | BPF_K, 0, 0, 0}};
  const struct sock_fprog drop_all = {.len = 1, .filter = code};
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  for (int i = 0; i < port_count; i++) {
    sinks[i] = -1;
    if (is_sample(first_port + i)) continue;
    sinks[i] = bind_udp(address, first_port + i);
    if (setsockopt(sinks[i], SOL_SOCKET, SO_ATTACH_FILTER, &drop_all, sizeof(drop_all)) < 0)
      die("SO_ATTACH_FILTER");
  }
}

static uint64_t dropped_at(int fd) {
  uint32_t info[SK_MEMINFO_VARS] = {0};
  socklen_t length = sizeof(info);
  if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &length) < 0) die("SO_MEMINFO");
  return info[SK_MEMINFO_DROPS];
}

static void drain_sample(int index) {
  static uint8_t packet[65536];
  char control[256];
  struct iovec iov = {packet, sizeof(packet)};
  for (;;) {
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    const ssize_t length = recvmsg(sample_sockets[index], &message, MSG_DONTWAIT);
    if (length < 0) return;
    int64_t arrival = 0;
    for (struct cmsghdr* c = CMSG_FIRSTHDR(&message); c != NULL; c = CMSG_NXTHDR(&message, c)) {
      struct timespec stamp;
      if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_TIMESTAMPNS) continue;
      memcpy(&stamp, CMSG_DATA(c), sizeof(stamp));
      arrival = stamp.tv_sec * 1000000000LL + stamp.tv_nsec;
    }
    sample_packet(&samples[index], &delays, packet, (int)length, arrival ? arrival : realtime_ns());
  }
}

static void print_counts(void) {
  uint64_t packets = 0, skbs = 0, least = UINT64_MAX, most = 0;
  for (int i = 0; i < port_count; i += 2) {
    uint64_t here = 0;
    if (tcx_ports != NULL) {
      here = tcx_ports[i].packets;
      skbs += tcx_ports[i].skbs;
    } else if (sinks[i] >= 0) {
      here = dropped_at(sinks[i]);
    } else {
      for (int s = 0; s < sample_count; s++)
        if (sample_ports[s] == first_port + i) here = samples[s].packets;
    }
    packets += here;
    if (here < least) least = here;
    if (here > most) most = here;
  }
  printf("{\"packets\":%llu,\"skbs\":%llu,\"least\":%llu,\"most\":%llu,",
         (unsigned long long)packets, (unsigned long long)skbs, (unsigned long long)least,
         (unsigned long long)most);
  samples_print(samples, sample_count, &delays);
  printf("}\n");
}

// Returns 0 when stdin has ended.
static int command(void) {
  char line[64];
  if (fgets(line, sizeof(line), stdin) == NULL) return 0;
  for (int i = 0; i < sample_count; i++) drain_sample(i);
  if (strncmp(line, "reset", 5) == 0) {
    delays.count = 0;
    for (int i = 0; i < sample_count; i++) {
      const uint64_t packets = samples[i].packets;
      sample_reset(&samples[i]);
      if (tcx_ports == NULL)
        samples[i].packets = packets;  // there the sample is also the port's counter
    }
    printf("{}\n");
  } else {
    print_counts();
  }
  fflush(stdout);
  return 1;
}

int main(int argc, char** argv) {
  if (argc < 5) {
    fprintf(stderr,
            "usage: udp_sink tcx|socket INTERFACE|ADDRESS FIRST_PORT PORTS SAMPLE_PORT...\n");
    return 2;
  }
  setvbuf(stdin, NULL, _IONBF, 0);
  first_port = atoi(argv[3]);
  port_count = atoi(argv[4]);
  for (int i = 5; i < argc && sample_count < kMaxSamples; i++)
    sample_ports[sample_count++] = atoi(argv[i]);
  if (first_port <= 0 || port_count <= 0 || port_count > kMaxPorts) die("ports");
  if (strcmp(argv[1], "tcx") == 0) {
    char error[512];
    tcx_ports = tcx_counter_start(argv[2], 14, first_port, port_count, error, sizeof(error));
    if (tcx_ports == NULL) {
      printf("{\"refused\":\"tcx\"}\n");
      fprintf(stderr, "udp_sink: %s\n", error);
      return 3;
    }
    for (int i = 0; i < sample_count; i++) tcx_ports[sample_ports[i] - first_port].pass = 1;
    open_samples("0.0.0.0");
  } else {
    open_sinks(argv[2]);
    open_samples(argv[2]);
  }
  printf("{\"ready\":\"%s\"}\n", argv[1]);
  fflush(stdout);
  struct pollfd polled[kMaxSamples + 1] = {{.fd = 0, .events = POLLIN}};
  for (int i = 0; i < sample_count; i++)
    polled[i + 1] = (struct pollfd){.fd = sample_sockets[i], .events = POLLIN};
  for (;;) {
    if (poll(polled, (nfds_t)sample_count + 1, -1) < 0 && errno != EINTR) die("poll");
    for (int i = 0; i < sample_count; i++)
      if (polled[i + 1].revents) drain_sample(i);
    if (polled[0].revents && !command()) return 0;
  }
}
