// IPv6 header (RFC 8200 3) and its chain of extension headers (4): field table, checked view,
// bounded walk. After `parse` succeeded no accessor reads outside the packet.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "wire/byte_order.h"

namespace apo::wire {

namespace ipv6_field {
inline constexpr size_t kVersionClassLabel = 0;
inline constexpr size_t kPayloadLength = 4;
inline constexpr size_t kNextHeader = 6;
inline constexpr size_t kHopLimit = 7;
inline constexpr size_t kSource = 8;
inline constexpr size_t kDestination = 24;
}  // namespace ipv6_field

namespace ip_protocol {
inline constexpr uint8_t kHopByHop = 0;
inline constexpr uint8_t kIcmp = 1;
inline constexpr uint8_t kIgmp = 2;
inline constexpr uint8_t kTcp = 6;
inline constexpr uint8_t kUdp = 17;
inline constexpr uint8_t kRouting = 43;
inline constexpr uint8_t kFragment = 44;
inline constexpr uint8_t kIcmpv6 = 58;
inline constexpr uint8_t kNoNext = 59;
inline constexpr uint8_t kDestinationOptions = 60;
}  // namespace ip_protocol

class Ipv6View {
 public:
  static constexpr size_t kHeaderBytes = 40;
  static constexpr size_t kAddressBytes = 16;

  // nullopt: not version 6, or a payload length that does not fit the bytes (a jumbogram is not for
  // us).
  static std::optional<Ipv6View> parse(std::span<const uint8_t> bytes) {
    if (bytes.size() < kHeaderBytes || bytes[0] >> 4 != 6) return std::nullopt;
    const size_t total = kHeaderBytes + load16(bytes.data() + ipv6_field::kPayloadLength);
    if (total > bytes.size()) return std::nullopt;
    return Ipv6View(bytes.data(), total);
  }

  [[nodiscard]] size_t total_length() const { return total_length_; }
  [[nodiscard]] uint8_t traffic_class() const { return static_cast<uint8_t>(load16(at_) >> 4); }
  [[nodiscard]] uint32_t flow_label() const { return load32(at_) & 0xfffff; }
  [[nodiscard]] uint8_t next_header() const { return at_[ipv6_field::kNextHeader]; }
  [[nodiscard]] uint8_t hop_limit() const { return at_[ipv6_field::kHopLimit]; }
  [[nodiscard]] const uint8_t* source() const { return at_ + ipv6_field::kSource; }
  [[nodiscard]] const uint8_t* destination() const { return at_ + ipv6_field::kDestination; }
  [[nodiscard]] std::span<const uint8_t> payload() const {
    return {at_ + kHeaderBytes, total_length_ - kHeaderBytes};
  }
  [[nodiscard]] std::span<const uint8_t> bytes() const { return {at_, total_length_}; }

 private:
  Ipv6View(const uint8_t* at, size_t total_length) : at_(at), total_length_(total_length) {}

  const uint8_t* at_;
  size_t total_length_;
};

// Where the extension headers end and the upper layer begins.
struct Ipv6UpperLayer {
  enum class State : uint8_t {
    kFound,
    kMalformed,       // a header longer than the packet, hop-by-hop not first, too many of them
    kFragment,        // a real fragment: reassembly's matter
    kRoutingRefused,  // a routing header with segments left, or of type 0 (RFC 5095)
    kNone,            // next header 59
  };
  State state = State::kMalformed;
  uint8_t protocol = 0;
  size_t offset = 0;                                   // from the IPv6 header's first byte
  size_t next_header_field = ipv6_field::kNextHeader;  // where `protocol` is said
};

// At most this many extension headers are walked; more is an attack, not a packet (RFC 9098 3).
inline constexpr int kIpv6ExtensionHeadersMax = 8;

inline Ipv6UpperLayer ipv6_upper_layer(const Ipv6View& ip) {
  using State = Ipv6UpperLayer::State;
  const std::span<const uint8_t> bytes = ip.bytes();
  uint8_t next = ip.next_header();
  size_t offset = Ipv6View::kHeaderBytes;
  size_t field = ipv6_field::kNextHeader;
  for (int headers = 0; headers <= kIpv6ExtensionHeadersMax; ++headers) {
    const bool is_extension = next == ip_protocol::kHopByHop || next == ip_protocol::kRouting ||
                              next == ip_protocol::kFragment ||
                              next == ip_protocol::kDestinationOptions;
    if (next == ip_protocol::kNoNext) return {State::kNone, next, offset, field};
    if (!is_extension) return {State::kFound, next, offset, field};
    if (next == ip_protocol::kHopByHop && headers > 0)
      return {State::kMalformed, next, offset, field};
    if (bytes.size() - offset < 8) return {State::kMalformed, next, offset, field};
    const uint8_t* header = bytes.data() + offset;
    size_t header_bytes = 8;
    if (next == ip_protocol::kFragment) {
      // An "atomic" fragment is a whole datagram (RFC 6946); everything else waits for reassembly.
      if ((load16(header + 2) & 0xfff9) != 0) return {State::kFragment, next, offset, field};
    } else {
      header_bytes = 8 + 8 * static_cast<size_t>(header[1]);
    }
    if (next == ip_protocol::kRouting && (header[2] == 0 || header[3] != 0)) {
      return {State::kRoutingRefused, next, offset, field};
    }
    if (bytes.size() - offset < header_bytes) return {State::kMalformed, next, offset, field};
    next = header[0];
    field = offset;
    offset += header_bytes;
  }
  return {State::kMalformed, next, offset, field};
}

}  // namespace apo::wire
