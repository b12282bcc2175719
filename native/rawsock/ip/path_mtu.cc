#include "ip/path_mtu.h"

#include <algorithm>

#include "wire/byte_order.h"

namespace apo {
namespace {

// RFC 1191 7.1: the MTUs that networks have, those of a kind brought down to the least of them.
constexpr uint32_t kPlateaus[] = {65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68};

size_t plateau_below(size_t bytes) {
  for (const uint32_t plateau : kPlateaus) {
    if (plateau < bytes) return plateau;
  }
  return 0;
}

}  // namespace

size_t PathMtuCache::find_mtu(uint8_t version, const uint8_t* destination, size_t link_mtu,
                              uint64_t now_us) const {
  const auto at =
      paths_.find(IpAddress::from_bytes(version, destination), hash_of(version, destination));
  // An entry whose time is over stays until its place is wanted.
  if (at == paths_.kNone || paths_.value(at).expires_us <= now_us) return link_mtu;
  return std::min<size_t>(link_mtu, paths_.value(at).mtu);
}

PathMtuCache::Learned PathMtuCache::learn(uint8_t version, const uint8_t* destination,
                                          size_t reported, size_t packet_bytes, size_t link_mtu,
                                          uint64_t now_us) {
  if (version == 4 && reported == 0) reported = plateau_below(packet_bytes);
  // A packet that fits cannot have been too big; less than IPv6's least is no MTU (RFC 8201 4).
  if (reported >= packet_bytes) return Learned::kIgnored;
  const size_t floor = version == 4 ? limits_.ipv4_floor : kIpv6Floor;
  if (reported < floor) {
    if (version == 6 || packet_bytes <= floor) return Learned::kIgnored;
    reported = floor;
  }
  if (reported >= mtu_for(version, destination, link_mtu, now_us)) return Learned::kKnown;

  const IpAddress address = IpAddress::from_bytes(version, destination);
  const uint32_t hash = hash_of(version, destination);
  const auto known = paths_.find(address, hash);
  if (known != paths_.kNone) {
    paths_.erase(known);
  } else if (paths_.full() && paths_.size() > 0) {
    paths_.erase(paths_.oldest());
  }
  const auto at = paths_.insert(address, hash);
  if (at == paths_.kNone) return Learned::kIgnored;
  paths_.value(at) = {now_us + limits_.expiry_us, static_cast<uint32_t>(reported)};
  return Learned::kLowered;
}

uint32_t PathMtuCache::hash_of(uint8_t version, const uint8_t* destination) const {
  HalfSipHash hash(key_);
  for (size_t i = 0; i < (version == 4 ? 4u : 16u); i += 4) hash.add(wire::load32(destination + i));
  return hash.finish();
}

}  // namespace apo
