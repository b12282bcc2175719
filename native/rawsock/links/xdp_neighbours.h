// Where an IP packet goes on an interface that we share with the kernel: the kernel's routes through
// it (main table, longest prefix first) and the kernel's neighbours on it, read over netlink and
// followed as they change. We ask nobody on the network ourselves: a neighbour that is missing is
// asked for by the kernel, on our word, and up to three packets wait for it.
//
// Used by one thread; every table is bounded. Policy rules, other tables and nexthops on other
// interfaces are not looked at.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "ethernet/ethernet.h"
#include "ip/ip_address.h"
#include "ip/steer_hash.h"
#include "util/netlink.h"

namespace apo {

// A whole Ethernet frame that waits for its destination's hardware address.
struct XdpParkedFrame {
  uint32_t frame = 0;
  uint32_t length = 0;
};

// Whom the frames belong to.
class XdpParkedFrameOwner {
 public:
  virtual ~XdpParkedFrameOwner() = default;
  virtual void resolved(const XdpParkedFrame& parked, const MacAddress& mac) = 0;
  // Nobody answered in time, or the kernel has given up.
  virtual void unreachable(const XdpParkedFrame& parked) = 0;
};

class XdpNeighbours {
 public:
  static constexpr size_t kRoutesMax = 4096;  // an IP version
  static constexpr size_t kNeighboursMax = 4096;
  static constexpr size_t kParkedMax = 256;  // in all
  static constexpr size_t kParkedPerNeighbour = 3;
  static constexpr uint64_t kParkedUs = 1'000'000;

  enum class Answer : uint8_t {
    kKnown,    // `mac`
    kUnknown,  // `park` may be called for `neighbour`
    kNoRoute,
    kFull,  // the table of neighbours is
  };
  struct NextHop {
    Answer answer = Answer::kNoRoute;
    uint32_t neighbour = 0;
    MacAddress mac{};
  };

  XdpNeighbours(XdpParkedFrameOwner& owner, SteerKey key);

  // Reads the tables. 0 or an errno.
  [[nodiscard]] int open(int interface_index, const AddressSet& own);
  // Becomes readable when something has changed.
  [[nodiscard]] int fd() const { return news_.fd(); }

  // `destination` is a unicast address of 4 or 16 bytes.
  [[nodiscard]] NextHop find(uint8_t version, const uint8_t* destination, uint64_t now_us);
  // False: no room.
  [[nodiscard]] bool park(uint32_t neighbour, const XdpParkedFrame& frame, uint64_t now_us);

  // Reads what has changed. Frames whose neighbour is known now go to the owner.
  void follow(uint64_t now_us);
  // When `tick` is due; UINT64_MAX: never.
  [[nodiscard]] uint64_t deadline_us() const;
  void tick(uint64_t now_us);
  // Gives every waiting frame to the owner as unreachable.
  void give_up();

  [[nodiscard]] size_t parked() const { return parked_; }
  [[nodiscard]] size_t routes() const { return routes4_.size() + routes6_.size(); }
  [[nodiscard]] size_t neighbours() const { return by_address_.size(); }
  // Questions to the kernel, answers, and neighbours that did not answer, since the last call.
  struct Tally {
    uint64_t asked = 0;
    uint64_t resolved = 0;
    uint64_t failed = 0;
  };
  [[nodiscard]] Tally take_tally();

 private:
  struct RouteEntry {
    IpPrefix to;
    IpAddress via;
    bool has_via = false;
    uint32_t metric = 0;
  };
  enum class State : uint8_t { kUnknown, kFresh, kStale };
  struct Neighbour {
    IpAddress address;
    MacAddress mac{};
    State state = State::kUnknown;
    bool used = false;  // this entry of the table
    uint8_t parked_count = 0;
    uint64_t asked_us = 0;
    uint64_t give_up_us = 0;
    std::array<XdpParkedFrame, kParkedPerNeighbour> parked{};
  };
  // The last neighbours looked up, by destination: a hit spares routes and hash tables.
  struct Cached {
    uint32_t generation = 0;
    uint32_t neighbour = 0;
    IpAddress destination;
  };
  static constexpr size_t kCacheEntries = 1024;

  struct AddressHash {
    SteerKey key;
    size_t operator()(const IpAddress& address) const;
  };

  [[nodiscard]] int read_routes();
  [[nodiscard]] int read_neighbours();
  [[nodiscard]] int dump_routes(uint8_t family, std::vector<RouteEntry>& routes);
  void add_route(const NetlinkMessage& message, std::vector<RouteEntry>& routes) const;
  void take_neighbour(const NetlinkMessage& message);
  void take_news(const NetlinkMessage& message);
  [[nodiscard]] const RouteEntry* route_to(uint8_t version, const uint8_t* destination) const;
  // The neighbour's entry, made when it is new; kNeighboursMax: no room.
  [[nodiscard]] uint32_t entry_of(const IpAddress& address);
  [[nodiscard]] bool make_room();
  void forget(uint32_t index);
  void ask(Neighbour& neighbour, uint64_t now_us);
  void release_parked(Neighbour& neighbour, bool resolved);
  [[nodiscard]] NextHop hop_of(uint32_t index, uint64_t now_us);

  XdpParkedFrameOwner& owner_;
  const SteerKey key_;
  int interface_index_ = 0;
  AddressSet own_;
  NetlinkSocket requests_;
  NetlinkSocket news_;
  std::vector<RouteEntry> routes4_;
  std::vector<RouteEntry> routes6_;
  std::vector<Neighbour> table_;
  std::vector<uint32_t> free_;
  std::unordered_map<IpAddress, uint32_t, AddressHash> by_address_;
  std::array<Cached, kCacheEntries> cache_{};
  uint32_t generation_ = 1;
  std::vector<uint32_t> waiting_;  // neighbours with parked frames
  size_t parked_ = 0;
  size_t clock_hand_ = 0;  // where the search for an entry that may go begins
  bool routes_changed_ = false;
  uint64_t routes_read_us_ = 0;
  uint64_t ask_window_us_ = 0;
  uint32_t asked_in_window_ = 0;
  Tally tally_;
};

}  // namespace apo
