// Reference: the cheapest fan-out that a user program can hope for. A frame is gathered up to its
// marker bit; then each receiver gets it by one sendmsg with UDP_SEGMENT for each run of
// equal-sized packets.
//
// No session, no cache, no statistics, no second track, no hold limit: that is what the relay does
// beside it.
#include <netinet/udp.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include "loop.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

enum { kMaxPackets = 1024, kMaxSegments = 64, kMaxRunBytes = 65000, kMarker = 0x80 };

static uint8_t bytes[kMaxPackets * kPacketBytes];  // the frame's packets, one behind the other
static int lengths[kMaxPackets];

// Packets from `first` on that one UDP_SEGMENT send may carry: equal-sized, the last one may be
// shorter.
static int run_length(int first, int packets, int* run_bytes) {
  int count = 0;
  *run_bytes = 0;
  while (first + count < packets && count < kMaxSegments) {
    const int length = lengths[first + count];
    if (length > lengths[first] || *run_bytes + length > kMaxRunBytes) break;
    *run_bytes += length;
    count++;
    if (length < lengths[first]) break;
  }
  return count;
}

static void send_run(const struct loop* loop, uint8_t* at, int run_bytes, int count,
                     uint16_t size) {
  union {
    char bytes[CMSG_SPACE(sizeof(uint16_t))];
    struct cmsghdr align;
  } control = {0};
  struct iovec iov = {at, (size_t)run_bytes};
  struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
  if (count > 1) {
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof(control.bytes);
    struct cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_UDP;
    header->cmsg_type = UDP_SEGMENT;
    header->cmsg_len = CMSG_LEN(sizeof(size));
    memcpy(CMSG_DATA(header), &size, sizeof(size));
  }
  for (int i = 0; i < loop->count; i++) {
    message.msg_name = &loop->receivers[i];
    message.msg_namelen = sizeof(loop->receivers[i]);
    sendmsg(loop->fd, &message, 0);
  }
}

int main(int argc, char** argv) {
  struct loop loop = loop_start(argc, argv);
  for (;;) {
    int packets = 0, used = 0, marker = 0;
    while (!marker && packets < kMaxPackets) {
      const ssize_t length = recv(loop.fd, bytes + used, kPacketBytes, 0);
      if (length < 12) return 1;
      marker = bytes[used + 1] & kMarker;
      lengths[packets++] = (int)length;
      used += (int)length;
    }
    uint8_t* at = bytes;
    for (int first = 0; first < packets;) {
      int run_bytes;
      const int count = run_length(first, packets, &run_bytes);
      send_run(&loop, at, run_bytes, count, (uint16_t)lengths[first]);
      at += run_bytes;
      first += count;
    }
  }
}
