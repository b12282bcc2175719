// The 32-byte packet descriptor that travels on the rings between the native thread and the
// workers: a packet already parsed. Mirrored word for word in src/layer3-ip/descriptor.ts.
//
//   word 0  frame           the pool's frame number
//   word 1  offsets         bits 0-15: the IP header's offset in the frame;
//                           16-31: the upper layer's offset in the frame
//   word 2  length          the IP packet's length in bytes, from its header's first byte
//   word 3  kind            bits 0-7 protocol; 8-11 shard; 12-15 IP version (4, 6); 16-17 checksum
//                           state; 18-20 GSO kind; 21-23 what it is (PacketKind); 24 to be sent:
//                           not in pieces; 25-31 zero
//   word 4  label           IPv6: the flow label (0 on IPv4). Received ICMP: type << 8 | code
//   word 5  segments        bits 0-15 GSO segment size (0: one packet); 16-23 TTL or hop limit;
//                           24-31 traffic class
//   word 6  receivedUsLow   arrival, microseconds of CLOCK_MONOTONIC, low 32 bits (differences of
//                           these suffice)
//   word 7  hash            received: the flow's steering hash, whose top 4 bits are the shard
//
// To send, a worker puts the upper layer's packet at its offset and the two addresses right before
// it: there they are already where the IP header (20 bytes, or 40) has them. The native thread
// writes the rest of that header, the checksums, and takes word 5's hop limit and traffic class
// (hop limit 0: the default of 64) and word 4's label.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace apo {

inline constexpr size_t kDescriptorWords = 8;

// kPartial: the field holds the pseudo header's sum alone (not complemented), because the packet has not
// left a machine that can be trusted with its bytes.
enum class ChecksumState : uint8_t { kUnchecked = 0, kVerified = 1, kPartial = 2 };
enum class GsoKind : uint8_t { kNone = 0, kUdp = 1, kTcp4 = 2, kTcp6 = 3 };
// What is left to be done to a packet, or has been done to it, beyond its bytes: virtio_net_hdr's facts
// in our words. A super-packet (`gso_kind` not kNone) is one whose upper layer stands for several
// packets of `gso_bytes` payload each (the last may be shorter); its checksum is partial.
struct Offload {
  ChecksumState checksum_state = ChecksumState::kUnchecked;
  GsoKind gso_kind = GsoKind::kNone;
  uint16_t gso_bytes = 0;
};

enum class PacketKind : uint8_t {
  kData = 0,
  kEchoReply = 1,
  kIcmpError = 2,    // the packet's ICMP body quotes a packet of ours
  kEchoRequest = 3,  // transmit only
};

struct PacketDescriptor {
  uint32_t frame = 0;
  uint32_t packet_offset = 0;
  uint32_t upper_offset = 0;
  uint32_t length = 0;
  uint8_t protocol = 0;
  uint8_t shard = 0;
  uint8_t version = 4;
  ChecksumState checksum_state = ChecksumState::kUnchecked;
  GsoKind gso_kind = GsoKind::kNone;
  PacketKind kind = PacketKind::kData;
  bool whole = false;
  uint32_t label = 0;
  uint16_t gso_bytes = 0;
  uint8_t hop_limit = 0;
  uint8_t traffic_class = 0;
  uint32_t received_us = 0;  // low 32 bits
  uint32_t hash = 0;

  using Words = std::array<uint32_t, kDescriptorWords>;

  [[nodiscard]] Words encode() const {
    Words words;
    words[0] = frame;
    words[1] = (packet_offset & 0xffff) | (upper_offset & 0xffff) << 16;
    words[2] = length;
    words[3] = protocol | (shard & 0xfu) << 8 | (version & 0xfu) << 12 |
               static_cast<uint32_t>(checksum_state) << 16 | static_cast<uint32_t>(gso_kind) << 18 |
               static_cast<uint32_t>(kind) << 21 | static_cast<uint32_t>(whole) << 24;
    words[4] = label;
    words[5] = gso_bytes | static_cast<uint32_t>(hop_limit) << 16 |
               static_cast<uint32_t>(traffic_class) << 24;
    words[6] = received_us;
    words[7] = hash;
    return words;
  }

  static PacketDescriptor decode(const Words& words) {
    PacketDescriptor packet;
    packet.frame = words[0];
    packet.packet_offset = words[1] & 0xffff;
    packet.upper_offset = words[1] >> 16;
    packet.length = words[2];
    packet.protocol = static_cast<uint8_t>(words[3]);
    packet.shard = words[3] >> 8 & 0xf;
    packet.version = words[3] >> 12 & 0xf;
    packet.checksum_state = static_cast<ChecksumState>(words[3] >> 16 & 3);
    packet.gso_kind = static_cast<GsoKind>(words[3] >> 18 & 7);
    packet.kind = static_cast<PacketKind>(words[3] >> 21 & 7);
    packet.whole = (words[3] >> 24 & 1) != 0;
    packet.label = words[4];
    packet.gso_bytes = static_cast<uint16_t>(words[5]);
    packet.hop_limit = static_cast<uint8_t>(words[5] >> 16);
    packet.traffic_class = static_cast<uint8_t>(words[5] >> 24);
    packet.received_us = words[6];
    packet.hash = words[7];
    return packet;
  }
};

}  // namespace apo
