// Ethernet II frames (IEEE 802.3): addresses, field table, a checked view and the header's writer.
//
// 802.1Q tags are refused, not skipped: a link is one network, and a frame of a VLAN belongs to
// another one. Whoever wants a VLAN opens the link on the VLAN's own interface.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

#include "ip/ip_address.h"
#include "wire/byte_order.h"

namespace apo {

struct MacAddress {
  static constexpr size_t kBytes = 6;
  std::array<uint8_t, kBytes> bytes{};

  static MacAddress from_bytes(const uint8_t* at) {
    MacAddress mac;
    std::memcpy(mac.bytes.data(), at, kBytes);
    return mac;
  }
  static constexpr MacAddress broadcast() { return {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}; }

  [[nodiscard]] bool is_group() const { return (bytes[0] & 1) != 0; }
  // One that a single station may have: neither a group nor zero.
  [[nodiscard]] bool is_station() const { return !is_group() && *this != MacAddress{}; }
  [[nodiscard]] bool operator==(const MacAddress& other) const = default;
};

namespace ethertype {
inline constexpr uint16_t kIpv4 = 0x0800;
inline constexpr uint16_t kArp = 0x0806;
inline constexpr uint16_t kVlan = 0x8100;
inline constexpr uint16_t kServiceVlan = 0x88a8;
inline constexpr uint16_t kIpv6 = 0x86dd;
}  // namespace ethertype

namespace ethernet_field {
inline constexpr size_t kDestination = 0;
inline constexpr size_t kSource = 6;
inline constexpr size_t kType = 12;
}  // namespace ethernet_field

class EthernetView {
 public:
  static constexpr size_t kHeaderBytes = 14;

  // nullopt: too short for a header, or from a group address, which no station has.
  static std::optional<EthernetView> parse(std::span<const uint8_t> frame) {
    if (frame.size() < kHeaderBytes) return std::nullopt;
    if ((frame[ethernet_field::kSource] & 1) != 0) return std::nullopt;
    return EthernetView(frame);
  }

  [[nodiscard]] MacAddress destination() const {
    return MacAddress::from_bytes(frame_.data() + ethernet_field::kDestination);
  }
  [[nodiscard]] MacAddress source() const {
    return MacAddress::from_bytes(frame_.data() + ethernet_field::kSource);
  }
  [[nodiscard]] uint16_t type() const {
    return wire::load16(frame_.data() + ethernet_field::kType);
  }
  // A frame of a VLAN: refused.
  [[nodiscard]] bool is_tagged() const {
    return type() == ethertype::kVlan || type() == ethertype::kServiceVlan;
  }
  // What follows the header, with whatever padding the frame has.
  [[nodiscard]] std::span<const uint8_t> payload() const { return frame_.subspan(kHeaderBytes); }

 private:
  explicit EthernetView(std::span<const uint8_t> frame) : frame_(frame) {}

  std::span<const uint8_t> frame_;
};

// Writes `kHeaderBytes` bytes.
inline void write_ethernet_header(uint8_t* out, const MacAddress& to, const MacAddress& from,
                                  uint16_t type) {
  std::memcpy(out + ethernet_field::kDestination, to.bytes.data(), MacAddress::kBytes);
  std::memcpy(out + ethernet_field::kSource, from.bytes.data(), MacAddress::kBytes);
  wire::store16(out + ethernet_field::kType, type);
}

inline bool is_multicast(const IpAddress& address) {
  return address.version == 4 ? address.bytes[0] >> 4 == 0xe : address.bytes[0] == 0xff;
}

// The group address of an IP multicast address (RFC 1112 6.4, RFC 2464 7).
inline MacAddress multicast_mac(const IpAddress& group) {
  const auto& ip = group.bytes;
  if (group.version == 4) {
    return {{0x01, 0x00, 0x5e, static_cast<uint8_t>(ip[1] & 0x7f), ip[2], ip[3]}};
  }
  return {{0x33, 0x33, ip[12], ip[13], ip[14], ip[15]}};
}

// ff02::1:ffXX:XXXX, where questions about `address` are asked (RFC 4291 2.7.1).
inline IpAddress solicited_node(const IpAddress& address) {
  IpAddress group;
  group.version = 6;
  group.bytes = {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0};
  for (size_t i = 13; i < 16; ++i) group.bytes[i] = address.bytes[i];
  return group;
}

}  // namespace apo
