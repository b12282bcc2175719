// Neighbour Discovery (RFC 4861): messages as plain values, parsed with every check that the RFC
// asks of a receiver (6.1.1, 6.1.2, 7.1.1, 7.1.2), and built. What is done about a message is
// station.cc's matter. Redirects are recognised and not followed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "ethernet/ethernet.h"
#include "ip/ip_address.h"

namespace apo {

enum class NdpType : uint8_t {
  kRouterSolicitation = 133,
  kRouterAdvertisement = 134,
  kNeighbourSolicitation = 135,
  kNeighbourAdvertisement = 136,
  kRedirect = 137,
};

// Of a router advertisement's prefix option (4.6.2), when its L bit is set.
struct OnLinkPrefix {
  IpPrefix prefix;
  uint32_t valid_seconds = 0;  // 0xffffffff: for ever
};

struct NdpMessage {
  static constexpr size_t kPrefixesMax = 8;

  NdpType type = NdpType::kNeighbourSolicitation;
  IpAddress source;
  IpAddress destination;
  IpAddress target;                      // of NS and NA
  std::optional<MacAddress> link_layer;  // the source's (NS, RS, RA) or the target's (NA)
  bool router = false;                   // the three flags of NA
  bool solicited = false;
  bool override = false;
  uint16_t router_seconds = 0;  // RA: how long its sender is a default router; 0: it is none
  uint32_t mtu = 0;             // RA: 0 when not given
  std::array<OnLinkPrefix, kPrefixesMax> prefixes{};
  size_t prefix_count = 0;

  [[nodiscard]] bool from_nobody() const { return source.bytes == IpAddress{}.bytes; }

  // True: this IPv6 packet is a neighbour discovery message, valid or not.
  [[nodiscard]] static bool recognise(std::span<const uint8_t> packet);
  // Of what `recognise` said yes to. nullopt: it fails one of the checks.
  static std::optional<NdpMessage> parse(std::span<const uint8_t> packet);

  // The IPv6 packet of an NS, NA or RS, with hop limit 255 and its checksum. Returns its length, at
  // most kWrittenMax. `link_layer` is left out when it has no value.
  static constexpr size_t kWrittenMax = 72;
  size_t write(uint8_t* out) const;
};

}  // namespace apo
