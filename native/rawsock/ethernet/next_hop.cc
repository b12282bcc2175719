#include "ethernet/next_hop.h"

#include <algorithm>

namespace apo {
namespace {

// The last address of an IPv4 prefix means all of its stations; a prefix of 31 bits has no such.
bool is_directed_broadcast(const IpPrefix& prefix, const IpAddress& address) {
  if (prefix.address.version != 4 || prefix.prefix_bits == 0 || prefix.prefix_bits > 30)
    return false;
  const uint32_t hosts = 0xffffffffu >> prefix.prefix_bits;
  return (wire::load32(address.bytes.data()) & hosts) == hosts;
}

bool is_sendable(const IpAddress& address) {
  if (address.bytes == IpAddress{}.bytes) return false;
  if (address.version == 4) return address.bytes[0] != 0 && address.bytes[0] != 127;
  IpAddress loopback;
  loopback.version = 6;
  loopback.bytes[15] = 1;
  return address != loopback;
}

}  // namespace

NextHopTable::NextHopTable(const AddressSet& own) : own_(own) {
  entries_.reserve(AddressSet::kMax + kRoutesMax + kAnnouncedPrefixesMax);
  for (size_t i = 0; i < own.size(); ++i) {
    // A whole prefix is ours, not the link's: nobody else has an address in it.
    if (!own.at(i).whole) insert({.to = own.at(i).prefix, .via = {}});
  }
}

bool NextHopTable::insert(const Entry& entry) {
  const auto behind = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& other) {
    return other.to.prefix_bits < entry.to.prefix_bits;
  });
  entries_.insert(behind, entry);
  return true;
}

bool NextHopTable::add_route(const Route& route) {
  const size_t routes = static_cast<size_t>(std::count_if(
      entries_.begin(), entries_.end(), [](const Entry& entry) { return !entry.on_link; }));
  if (routes == kRoutesMax || route.to.address.version != route.via.version) return false;
  return insert({.to = route.to, .on_link = false, .via = route.via});
}

bool NextHopTable::set_router(const IpAddress& router, uint64_t until_us) {
  const auto known = std::find_if(routers_.begin(), routers_.end(),
                                  [&](const Router& other) { return other.address == router; });
  if (until_us == 0) {
    if (known != routers_.end()) routers_.erase(known);
    return true;
  }
  if (known != routers_.end()) {
    known->until_us = until_us;
    return true;
  }
  if (routers_.size() == kRoutersMax) return false;
  routers_.push_back({router, until_us});
  return true;
}

bool NextHopTable::set_on_link(const IpPrefix& prefix, uint64_t until_us) {
  const auto known = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) {
    return entry.on_link && entry.to.prefix_bits == prefix.prefix_bits &&
           entry.to.contains(prefix.address.version, prefix.address.bytes.data());
  });
  if (known != entries_.end()) {
    // What the settings say stands for ever; a router's word lasts as long as it said last.
    if (known->until_us == kForever) return true;
    if (until_us == 0) {
      entries_.erase(known);
      --announced_;
    } else {
      known->until_us = until_us;
    }
    return true;
  }
  if (until_us == 0) return true;
  if (announced_ == kAnnouncedPrefixesMax) return false;
  ++announced_;
  // Even "for ever" is a router's word, which it may take back.
  return insert({.to = prefix, .via = {}, .until_us = std::min(until_us, kForever - 1)});
}

void NextHopTable::router_failed(const IpAddress& router) {
  const auto known = std::find_if(routers_.begin(), routers_.end(),
                                  [&](const Router& other) { return other.address == router; });
  if (known != routers_.end()) std::rotate(known, known + 1, routers_.end());
}

bool NextHopTable::is_router(const IpAddress& address) const {
  return std::any_of(routers_.begin(), routers_.end(),
                     [&](const Router& router) { return router.address == address; });
}

NextHop NextHopTable::find(const IpAddress& destination, uint64_t now_us) const {
  NextHop hop;
  if (is_multicast(destination)) {
    hop.kind = NextHop::Kind::kMac;
    hop.mac = multicast_mac(destination);
    return hop;
  }
  if (!is_sendable(destination) || own_.contains(destination.version, destination.bytes.data())) {
    return hop;
  }
  if (destination.version == 4 && wire::load32(destination.bytes.data()) == 0xffffffff) {
    hop.kind = NextHop::Kind::kMac;
    hop.mac = MacAddress::broadcast();
    return hop;
  }
  for (const Entry& entry : entries_) {
    if (!entry.to.contains(destination.version, destination.bytes.data())) continue;
    if (entry.until_us <= now_us) continue;
    if (entry.on_link && is_directed_broadcast(entry.to, destination)) {
      hop.kind = NextHop::Kind::kMac;
      hop.mac = MacAddress::broadcast();
      return hop;
    }
    hop.kind = NextHop::Kind::kNeighbour;
    hop.address = entry.on_link ? destination : entry.via;
    return hop;
  }
  if (destination.version == 4) return hop;
  for (const Router& router : routers_) {
    if (router.until_us <= now_us) continue;
    hop.kind = NextHop::Kind::kNeighbour;
    hop.address = router.address;
    return hop;
  }
  return hop;
}

}  // namespace apo
