// TCP super-packets as a TUN device with a virtio_net_hdr gives and takes them: how many segments one has, and
// packets made of a run of them.
//
// Knows nothing of wires. IPv4 without regard to options' meaning, IPv6 without extension headers.
#ifndef BENCH_SUPER_PACKET_H_
#define BENCH_SUPER_PACKET_H_

#include <stdint.h>

enum { kVnetNeedsChecksum = 1, kVnetTcp4 = 1, kVnetTcp6 = 4, kVnetEcn = 0x80 };
enum { kPacketBytesMax = 65536 };

// `struct virtio_net_hdr`, as the kernel prepends it.
struct vnet_header {
  uint8_t flags, gso_type;
  uint16_t header_bytes, gso_bytes, checksum_start, checksum_offset;
};

struct packet {
  struct vnet_header vnet;
  int length;
  uint8_t* bytes;
};

// The segments that a packet stands for; 1 when it is an ordinary one.
int segment_count(const struct packet* packet);
// Writes segments `first` to `first + count - 1` as one packet into `out` (whose `bytes` has room).
void take_segments(const struct packet* packet, int first, int count, struct packet* out);
// Writes a checksum that was left to the device; afterwards any damage to the packet can be found.
void complete_checksum(struct packet* packet);
// Marks a packet of an ECN-capable flow as having met congestion (RFC 3168 5). 0: it is of no such flow.
int mark_congestion(struct packet* packet);

#endif  // BENCH_SUPER_PACKET_H_
