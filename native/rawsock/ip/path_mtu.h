// What is known of the paths to single destinations: the longest packet that gets there (RFC 1191,
// RFC 8201). A bounded cache of what routers have told; destinations that it does not know take the
// link's MTU. The clock is handed in.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ip/ip_address.h"
#include "ip/steer_hash.h"
#include "util/fifo_table.h"

namespace apo {

struct PathMtuLimits {
  uint32_t destinations = 1024;      // the one that was learned first is forgotten first
  size_t ipv4_floor = 576;           // no router talks us down further (RFC 1191 3 allows 68)
  uint64_t expiry_us = 600'000'000;  // then the link's MTU is tried again (RFC 1191 6.3)
};

class PathMtuCache {
 public:
  static constexpr size_t kIpv6Floor = 1280;

  explicit PathMtuCache(SteerKey key, const PathMtuLimits& limits = {})
      : key_(key), limits_(limits), paths_(limits.destinations) {}

  // The longest packet for a destination (4 or 16 bytes).
  [[nodiscard]] size_t mtu_for(uint8_t version, const uint8_t* destination, size_t link_mtu,
                               uint64_t now_us) const {
    if (paths_.size() == 0) [[likely]] {
      return link_mtu;
    }
    return find_mtu(version, destination, link_mtu, now_us);
  }

  enum class Learned : uint8_t {
    kLowered,  // `mtu_for` gives less from here on
    kKnown,    // no news: it is as low already
    kIgnored,  // cannot be true, or is lower than may be
  };
  // What "fragmentation needed" (IPv4) or "packet too big" (IPv6) said: `reported` is its MTU field,
  // `packet_bytes` the length in the IP header that it quotes. The caller has made sure that the
  // quoted packet is one of ours (RFC 5927 7): what cannot be seen in the error alone is not checked
  // here.
  //
  // An MTU of 0 comes from routers older than RFC 1191: the next of its plateaus below the packet's
  // length is taken. Nothing raises an MTU but time.
  Learned learn(uint8_t version, const uint8_t* destination, size_t reported, size_t packet_bytes,
                size_t link_mtu, uint64_t now_us);

  [[nodiscard]] size_t size() const { return paths_.size(); }

 private:
  struct Path {
    uint64_t expires_us = 0;
    uint32_t mtu = 0;
  };

  [[nodiscard]] size_t find_mtu(uint8_t version, const uint8_t* destination, size_t link_mtu,
                                uint64_t now_us) const;
  [[nodiscard]] uint32_t hash_of(uint8_t version, const uint8_t* destination) const;

  SteerKey key_;
  PathMtuLimits limits_;
  FifoTable<IpAddress, Path> paths_;
};

}  // namespace apo
