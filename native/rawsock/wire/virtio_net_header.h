// virtio_net_hdr (virtio 1.2, 5.1.6; <linux/virtio_net.h>): what stands before each packet on a TUN
// device with IFF_VNET_HDR, and on sockets that speak the same, and how it reads as `Offload`.
// 10 bytes, or 12 with a count of buffers; all fields little-endian.
//
// Whoever writes the header may lie, so every field that has a meaning is checked against the
// packet; what is written is within what Linux takes (it refuses the whole packet with EINVAL
// otherwise).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/packet_descriptor.h"
#include "wire/tcp.h"
#include "wire/udp.h"

namespace apo::wire {

namespace virtio_net_field {
inline constexpr size_t kFlags = 0;
inline constexpr size_t kGsoType = 1;
inline constexpr size_t kHeaderBytes = 2;  // of a super-packet: all headers, a hint
inline constexpr size_t kGsoBytes = 4;
inline constexpr size_t kChecksumStart = 6;   // what is summed begins here
inline constexpr size_t kChecksumOffset = 8;  // from there: where the sum goes
inline constexpr size_t kBuffers = 10;        // of 12 bytes only
}  // namespace virtio_net_field

namespace virtio_net {
inline constexpr uint8_t kNeedsChecksum = 1;
inline constexpr uint8_t kDataValid = 2;

inline constexpr uint8_t kGsoNone = 0;
inline constexpr uint8_t kGsoTcp4 = 1;
inline constexpr uint8_t kGsoTcp6 = 4;
inline constexpr uint8_t kGsoUdp = 5;  // UDP_L4; 3 is the UFO of old, which nobody is offered
inline constexpr uint8_t kGsoEcn = 0x80;

// The kernel's GSO_BY_FRAGS, no size.
inline constexpr uint16_t kGsoBytesReserved = 0xffff;
// The kernel's UDP_MAX_SEGMENTS.
inline constexpr size_t kUdpSegmentsMax = 128;
}  // namespace virtio_net

inline constexpr size_t kVirtioNetHeaderBytes = 10;
inline constexpr size_t kVirtioNetHeaderBytesMax = 12;

inline uint16_t load16_little(const uint8_t* at) {
  return static_cast<uint16_t>(at[0] | at[1] << 8);
}
inline void store16_little(uint8_t* at, size_t value) {
  at[0] = static_cast<uint8_t>(value);
  at[1] = static_cast<uint8_t>(value >> 8);
}

// The TCP or UDP header of a whole IP packet (not a fragment).
struct OffloadTarget {
  uint8_t version = 4;
  uint8_t protocol = 0;
  size_t upper_offset = 0;
  size_t header_bytes = 0;  // up to the payload
  size_t length = 0;        // the IP packet's, by its own header

  [[nodiscard]] size_t checksum_offset() const {
    return protocol == ip_protocol::kTcp ? tcp_field::kChecksum : udp_field::kChecksum;
  }
  [[nodiscard]] size_t payload_bytes() const { return length - header_bytes; }

  static std::optional<OffloadTarget> find(std::span<const uint8_t> packet) {
    OffloadTarget target;
    if (const auto four = Ipv4View::parse(packet)) {
      if (four->is_fragment()) return std::nullopt;
      target.protocol = four->protocol();
      target.upper_offset = four->header_bytes();
      target.length = four->total_length();
    } else if (const auto six = Ipv6View::parse(packet)) {
      const Ipv6UpperLayer upper = ipv6_upper_layer(*six);
      if (upper.state != Ipv6UpperLayer::State::kFound) return std::nullopt;
      target.version = 6;
      target.protocol = upper.protocol;
      target.upper_offset = upper.offset;
      target.length = six->total_length();
    } else {
      return std::nullopt;
    }
    const std::span<const uint8_t> upper =
        packet.subspan(target.upper_offset, target.length - target.upper_offset);
    if (target.protocol == ip_protocol::kTcp) {
      const auto tcp = TcpView::parse(upper);
      if (!tcp) return std::nullopt;
      target.header_bytes = target.upper_offset + tcp->header_bytes();
    } else if (target.protocol == ip_protocol::kUdp && upper.size() >= UdpView::kHeaderBytes) {
      target.header_bytes = target.upper_offset + UdpView::kHeaderBytes;
    } else {
      return std::nullopt;
    }
    return target;
  }
};

// What a super-packet's header says; nullopt: it lies.
inline std::optional<Offload> read_virtio_gso(const OffloadTarget& target, uint8_t gso_type,
                                              size_t gso_bytes) {
  const bool ecn = (gso_type & virtio_net::kGsoEcn) != 0;
  GsoKind kind = GsoKind::kNone;
  switch (gso_type & ~virtio_net::kGsoEcn) {
    case virtio_net::kGsoTcp4:
      if (target.version != 4 || target.protocol != ip_protocol::kTcp) return std::nullopt;
      kind = GsoKind::kTcp4;
      break;
    case virtio_net::kGsoTcp6:
      if (target.version != 6 || target.protocol != ip_protocol::kTcp) return std::nullopt;
      kind = GsoKind::kTcp6;
      break;
    case virtio_net::kGsoUdp:
      if (target.protocol != ip_protocol::kUdp || ecn) return std::nullopt;
      if (target.payload_bytes() > gso_bytes * virtio_net::kUdpSegmentsMax) return std::nullopt;
      kind = GsoKind::kUdp;
      break;
    default:
      return std::nullopt;
  }
  if (gso_bytes == 0 || gso_bytes == virtio_net::kGsoBytesReserved) return std::nullopt;
  // No longer than one segment: an ordinary packet, as the kernel has it.
  if (target.payload_bytes() <= gso_bytes) return Offload{ChecksumState::kPartial};
  return Offload{ChecksumState::kPartial, kind, static_cast<uint16_t>(gso_bytes)};
}

// Reads the `header` (10 or 12 bytes) of a received packet; nullopt: it does not fit the packet.
// Where it says nothing, nothing of the packet has been checked.
inline std::optional<Offload> read_virtio_header(std::span<const uint8_t> header,
                                                 std::span<const uint8_t> packet) {
  namespace field = virtio_net_field;
  if (header.size() < kVirtioNetHeaderBytes) return std::nullopt;
  const uint8_t* at = header.data();
  // A packet in several buffers has no place here.
  if (header.size() >= kVirtioNetHeaderBytesMax && load16_little(at + field::kBuffers) > 1) {
    return std::nullopt;
  }
  // Flags that are not known mean features that were not agreed on: ignored, as virtio demands.
  const bool partial = (at[field::kFlags] & virtio_net::kNeedsChecksum) != 0;
  const bool verified = (at[field::kFlags] & virtio_net::kDataValid) != 0;
  const uint8_t gso_type = at[field::kGsoType];
  if (!partial && gso_type == virtio_net::kGsoNone && !verified) return Offload{};
  if (load16_little(at + field::kHeaderBytes) > packet.size()) return std::nullopt;

  const std::optional<OffloadTarget> target = OffloadTarget::find(packet);
  if (!partial) {
    // A super-packet's checksum is always partial (virtio 1.2, 5.1.6.4.1).
    if (gso_type != virtio_net::kGsoNone) return std::nullopt;
    // The sums of what is neither TCP nor UDP are nobody's to vouch for.
    return target ? Offload{ChecksumState::kVerified} : Offload{};
  }
  if (!target || load16_little(at + field::kChecksumStart) != target->upper_offset ||
      load16_little(at + field::kChecksumOffset) != target->checksum_offset()) {
    return std::nullopt;
  }
  if (gso_type == virtio_net::kGsoNone) return Offload{ChecksumState::kPartial};
  return read_virtio_gso(*target, gso_type, load16_little(at + field::kGsoBytes));
}

// Writes the whole `header` (10 or 12 bytes) for a packet to be sent. False: no header says that of
// such a packet.
inline bool write_virtio_header(std::span<uint8_t> header, std::span<const uint8_t> packet,
                                const Offload& offload) {
  namespace field = virtio_net_field;
  if (header.size() < kVirtioNetHeaderBytes) return false;
  for (uint8_t& byte : header) byte = 0;
  uint8_t* at = header.data();
  if (header.size() >= kVirtioNetHeaderBytesMax) store16_little(at + field::kBuffers, 1);
  if (offload.checksum_state != ChecksumState::kPartial) {
    return offload.gso_kind == GsoKind::kNone;
  }
  const std::optional<OffloadTarget> target = OffloadTarget::find(packet);
  if (!target) return false;
  at[field::kFlags] = virtio_net::kNeedsChecksum;
  store16_little(at + field::kHeaderBytes, target->header_bytes);
  store16_little(at + field::kChecksumStart, target->upper_offset);
  store16_little(at + field::kChecksumOffset, target->checksum_offset());
  if (offload.gso_kind == GsoKind::kNone) return true;

  uint8_t gso_type = virtio_net::kGsoUdp;
  if (target->protocol == ip_protocol::kTcp) {
    // A set CWR belongs to the first segment alone, which TSO has to be told.
    const bool cwr = (packet[target->upper_offset + tcp_field::kFlags] & tcp_flag::kCwr) != 0;
    gso_type = target->version == 4 ? virtio_net::kGsoTcp4 : virtio_net::kGsoTcp6;
    if (cwr) gso_type |= virtio_net::kGsoEcn;
  }
  const std::optional<Offload> same = read_virtio_gso(*target, gso_type, offload.gso_bytes);
  if (!same) return false;
  if (same->gso_kind == GsoKind::kNone) return true;
  if (same->gso_kind != offload.gso_kind) return false;
  at[field::kGsoType] = gso_type;
  store16_little(at + field::kGsoBytes, offload.gso_bytes);
  return true;
}

}  // namespace apo::wire
