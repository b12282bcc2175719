// Longest-prefix routing on one link: which neighbour a packet to an address is handed to.
//
// The prefixes of our own addresses are on the link, and so are those that routers announce; routes
// and gateways come from the settings, else a router that announces itself is the IPv6 gateway.
// Pure: the time is handed in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ethernet/ethernet.h"
#include "ip/ip_address.h"

namespace apo {

struct NextHop {
  enum class Kind : uint8_t {
    kNone,       // no route, or an address that nothing may be sent to
    kNeighbour,  // to whoever has `address` on the link
    kMac,        // multicast and broadcast: to `mac`
  };
  Kind kind = Kind::kNone;
  IpAddress address;
  MacAddress mac;
};

class NextHopTable {
 public:
  static constexpr size_t kRoutesMax = 256;
  static constexpr size_t kRoutersMax = 4;
  static constexpr size_t kAnnouncedPrefixesMax = 16;
  static constexpr uint64_t kForever = UINT64_MAX;

  explicit NextHopTable(const AddressSet& own);

  // False: the table is full. A gateway is a route to a prefix of no bits.
  bool add_route(const Route& route);

  // A router's word (RFC 4861 6.3.4): valid until `until_us`; one that is past removes. False: the
  // table is full.
  bool set_router(const IpAddress& router, uint64_t until_us);
  bool set_on_link(const IpPrefix& prefix, uint64_t until_us);
  // One that does not answer is asked last (6.3.6).
  void router_failed(const IpAddress& router);
  [[nodiscard]] bool is_router(const IpAddress& address) const;

  [[nodiscard]] NextHop find(const IpAddress& destination, uint64_t now_us) const;

 private:
  struct Entry {
    IpPrefix to;
    bool on_link = true;
    IpAddress via;
    uint64_t until_us = kForever;
  };
  struct Router {
    IpAddress address;
    uint64_t until_us = 0;
  };

  bool insert(const Entry& entry);

  AddressSet own_;
  std::vector<Entry> entries_;  // the longest prefix first
  size_t announced_ = 0;
  std::vector<Router> routers_;  // the first is asked first
};

}  // namespace apo
