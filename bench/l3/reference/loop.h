// What the C loops of the layer-3 bench share: being told what to do, counting, and the one packet that
// they send.
//
// A loop is told by lines on stdin: "in BYTES" (receive and count), "out BYTES" (send as fast as it
// can), "through BYTES" (send back what comes, ends exchanged), "idle" (receive and forget), "read".
// Every line is answered by one of JSON: {"packets":N,"bytes":N,"us":T}, received so far, and when
// (CLOCK_MONOTONIC). BYTES is the length of the IP packet; more than 1,500 is a super-packet of
// kSegmentBytes segments. Ends when stdin does.
#ifndef BENCH_L3_LOOP_H_
#define BENCH_L3_LOOP_H_

#include <stddef.h>
#include <stdint.h>

enum { kLoopIdle, kLoopIn, kLoopOut, kLoopThrough };
enum { kOwnPort = 7, kPeerPort = 9000 };
enum { kSegmentBytes = 1472, kPacketBytesMax = 65536 };

// `struct virtio_net_hdr`, as the kernel prepends it.
struct vnet_header {
  uint8_t flags, gso_type;
  uint16_t header_bytes, gso_bytes, checksum_start, checksum_offset;
};

// What the loop is to do now; `loop_bytes` is BYTES.
int loop_mode(void);
int loop_bytes(void);
void loop_count(uint64_t packets, uint64_t bytes);
// The answer's line.
void loop_say(uint64_t packets, uint64_t bytes);
// Starts listening to stdin and says {"ready":true}.
void loop_start(void);
void loop_die(const char* what);

// Writes a UDP packet of `bytes` bytes from `own` to `peer` (dotted IPv4); a super-packet's checksum is
// partial, and `vnet` says what is left to do. Returns its length.
size_t loop_packet(uint8_t* out, struct vnet_header* vnet, const char* own, const char* peer,
                   size_t bytes);
// Exchanges the ends of an IPv4 UDP packet; its checksums stay right. 0 when it is something else.
int loop_turn(uint8_t* ip, size_t bytes);

#endif  // BENCH_L3_LOOP_H_
