// Sends UDP datagrams to a loop as fast as one thread can, from a socket of the kernel: what the loops
// are fed with. On stdin: "start BYTES" (of the IP packet; more than 1,500: super-packets by
// UDP_SEGMENT), "stop"; each is answered by one line of JSON. Ends when stdin does.
//
//   generator OWN_ADDRESS LOOP_ADDRESS
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "loop.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

enum { kBatch = 64 };

static struct mmsghdr messages[kBatch];
static uint8_t payload[kPacketBytesMax];
static unsigned long long packets;

static struct sockaddr_in endpoint(const char* address, int port) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  if (inet_pton(AF_INET, address, &at.sin_addr) != 1) loop_die("address");
  return at;
}

// Obeys a line; returns whether to send.
static int obey(int fd, const char* line, struct iovec* part) {
  int bytes = 0;
  if (sscanf(line, "start %d", &bytes) != 1) return 0;
  const int segment = bytes > 1500 ? kSegmentBytes : 0;
  part->iov_len = segment ? 44 * kSegmentBytes : (size_t)bytes - 28;
  if (setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment)) < 0)
    loop_die("UDP_SEGMENT");
  return 1;
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const struct sockaddr_in own = endpoint(argv[1], kPeerPort), loop = endpoint(argv[2], kOwnPort);
  const int fd = socket(AF_INET, SOCK_DGRAM, 0), buffer = 4 << 20;
  setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof(buffer));
  if (bind(fd, (const struct sockaddr*)&own, sizeof(own)) < 0) loop_die("bind");
  if (connect(fd, (const struct sockaddr*)&loop, sizeof(loop)) < 0) loop_die("connect");
  struct iovec part = {payload, 0};
  for (int i = 0; i < kBatch; i++)
    messages[i].msg_hdr = (struct msghdr){.msg_iov = &part, .msg_iovlen = 1};
  printf("{\"ready\":true}\n");
  fflush(stdout);
  for (int sending = 0;;) {
    struct pollfd input = {.fd = 0, .events = POLLIN};
    if (poll(&input, 1, sending ? 0 : -1) > 0) {
      char line[64];
      if (!fgets(line, sizeof(line), stdin)) return 0;
      sending = obey(fd, line, &part);
      printf("{\"packets\":%llu}\n", packets);
      fflush(stdout);
    }
    // What the device drops (ENOBUFS) or nobody wants (ECONNREFUSED) is not sent again.
    for (int i = 0; sending && i < 16; i++) {
      const int done = sendmmsg(fd, messages, kBatch, 0);
      if (done > 0) packets += (unsigned)done;
    }
  }
}
