// What every packet fuzzer does with its packet: have it checked, and hold the answer to its
// promises.
#pragma once

#include <cstdlib>
#include <cstring>
#include <span>

#include "ip/icmp_output.h"
#include "ip/ip_input.h"
#include "wire/checksum.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace apo::fuzz {

inline constexpr uint8_t kOwn4[4] = {10, 0, 0, 1};
inline constexpr uint8_t kPeer4[4] = {10, 0, 0, 2};
inline constexpr uint8_t kOwn6[16] = {0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
inline constexpr uint8_t kPeer6[16] = {0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2};

inline void require(bool condition) {
  if (!condition) std::abort();
}

inline const AddressSet& own_addresses() {
  static const AddressSet own = [] {
    AddressSet set;
    require(set.add({{IpAddress::from_bytes(4, kOwn4), 24}}));
    require(set.add({{IpAddress::from_bytes(6, kOwn6), 64}}));
    return set;
  }();
  return own;
}

inline void check(std::span<const uint8_t> packet) {
  static uint8_t out[65'600];
  const InputPacket input = check_input(packet, own_addresses());
  if (input.kind == InputKind::kDropped || input.kind == InputKind::kFragment) return;
  require(input.length <= packet.size());
  require(input.upper_offset + input.upper_length <= input.length && input.upper_length >= 8);
  const auto inside = [&](const uint8_t* at) {
    return at >= packet.data() && at + input.address_bytes() <= packet.data() + input.length;
  };
  require(inside(input.source) && inside(input.destination));
  require(inside(input.flow_source) && inside(input.flow_destination));
  (void)input.steer({1, 2});
  if (input.kind == InputKind::kEchoRequest) {
    const size_t length = build_echo_reply(input, packet, out);
    require(length > 0 && length <= packet.size());
  }
  if (input.kind == InputKind::kUdp) {
    require(build_port_unreachable(input, packet, {out, 1500}) <= 1280);
  }
}

// An IP packet of either version around `upper`, to us, with the protocol's checksum made right at
// `field`.
inline void check_upper(std::span<const uint8_t> upper, bool six, uint8_t protocol, size_t field) {
  static uint8_t packet[65'600];
  const size_t header = six ? 40 : 20;
  if (upper.size() > 60'000) return;
  std::memset(packet, 0, header);
  if (six) {
    packet[0] = 0x60;
    wire::store16(packet + wire::ipv6_field::kPayloadLength, static_cast<uint32_t>(upper.size()));
    packet[wire::ipv6_field::kNextHeader] = protocol;
    std::memcpy(packet + wire::ipv6_field::kSource, kPeer6, 16);
    std::memcpy(packet + wire::ipv6_field::kDestination, kOwn6, 16);
  } else {
    packet[0] = 0x45;
    wire::store16(packet + wire::ipv4_field::kTotalLength,
                  static_cast<uint32_t>(20 + upper.size()));
    packet[wire::ipv4_field::kProtocol] = protocol;
    std::memcpy(packet + wire::ipv4_field::kSource, kPeer4, 4);
    std::memcpy(packet + wire::ipv4_field::kDestination, kOwn4, 4);
    wire::store16(packet + wire::ipv4_field::kChecksum,
                  wire::checksum_finish(wire::checksum_add(0, packet, 20)));
  }
  if (!upper.empty()) std::memcpy(packet + header, upper.data(), upper.size());
  if (upper.size() >= field + 2) {
    wire::store16(packet + header + field, 0);
    const size_t n = six ? 16 : 4;
    wire::Sum sum = 0;
    // A UDP length that lies is summed as the receiver would.
    size_t length = upper.size();
    if (protocol == 17) length = std::min<size_t>(length, wire::load16(packet + header + 4));
    if (six || protocol == 17) {
      sum = wire::checksum_pseudo_header(packet + header - 2 * n, n, static_cast<uint32_t>(length),
                                         protocol);
    }
    wire::store16(packet + header + field,
                  wire::checksum_finish(wire::checksum_add(sum, packet + header, length)));
  }
  check({packet, header + upper.size()});
}

}  // namespace apo::fuzz
