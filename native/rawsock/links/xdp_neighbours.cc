#include "links/xdp_neighbours.h"

#include <linux/neighbour.h>
#include <net/if.h>
#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <cerrno>

namespace apo {
namespace {

constexpr uint32_t kNewsGroups = RTMGRP_LINK | RTMGRP_NEIGH | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE;

// A neighbour that the kernel has not heard of for a while is used, and the kernel told to look
// whether it is still there; and one that did not answer is asked for again.
constexpr uint64_t kAskAgainUs = 5'000'000;
constexpr uint64_t kAskMissingAgainUs = 1'000'000;
// Questions a second at most: who scans us from many addresses does not flood the kernel's tables.
constexpr uint32_t kAsksPerWindow = 256;
constexpr uint64_t kAskWindowUs = 1'000'000;
// A host whose routes change all the time is not read all the time.
constexpr uint64_t kRoutesAgainUs = 1'000'000;
// A dump that was interrupted by a change is begun again, so often.
constexpr int kDumpTries = 5;

constexpr uint16_t kUsable =
    NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE;

}  // namespace

size_t XdpNeighbours::AddressHash::operator()(const IpAddress& address) const {
  // Keyed: on an IPv6 link neighbours choose their addresses.
  HalfSipHash hash(key);
  for (size_t at = 0; at < address.size(); at += 4) hash.add(wire::load32(&address.bytes[at]));
  return hash.finish();
}

XdpNeighbours::XdpNeighbours(XdpParkedFrameOwner& owner, SteerKey key)
    : owner_(owner), key_(key), by_address_(64, AddressHash{key}) {
  // All that they may ever need: nothing is allocated for a packet later.
  by_address_.reserve(kNeighboursMax);
  table_.resize(kNeighboursMax);
  free_.reserve(kNeighboursMax);
  for (uint32_t i = kNeighboursMax; i > 0; --i) free_.push_back(i - 1);
  waiting_.reserve(kParkedMax);
}

int XdpNeighbours::open(int interface_index, const AddressSet& own) {
  interface_index_ = interface_index;
  own_ = own;
  if (const int error = requests_.open(); error != 0) return error;
  // The news first: what changes during the dumps is in them.
  if (const int error = news_.open(kNewsGroups); error != 0) return error;
  if (const int error = read_routes(); error != 0) return error;
  return read_neighbours();
}

int XdpNeighbours::read_routes() {
  std::vector<RouteEntry> routes4, routes6;
  int error = dump_routes(AF_INET, routes4);
  if (error == 0) error = dump_routes(AF_INET6, routes6);
  if (error != 0) return error;
  routes4_.swap(routes4);
  routes6_.swap(routes6);
  ++generation_;
  return 0;
}

int XdpNeighbours::dump_routes(uint8_t family, std::vector<RouteEntry>& routes) {
  for (int tries = 0; tries < kDumpTries; ++tries) {
    routes.clear();
    rtmsg header = {};
    header.rtm_family = family;
    header.rtm_table = RT_TABLE_MAIN;
    NetlinkRequest get(RTM_GETROUTE, 0, header);
    get.attribute(RTA_TABLE, static_cast<uint32_t>(RT_TABLE_MAIN));
    get.attribute(RTA_OIF, static_cast<uint32_t>(interface_index_));
    const int error =
        requests_.dump(get, [&](const NetlinkMessage& message) { add_route(message, routes); });
    // A kernel without IPv6 has no such table.
    if (error == EAFNOSUPPORT || error == EOPNOTSUPP || error == ENOENT) return 0;
    if (error == EINTR) continue;
    if (error != 0) return error;
    std::stable_sort(routes.begin(), routes.end(), [](const RouteEntry& a, const RouteEntry& b) {
      if (a.to.prefix_bits != b.to.prefix_bits) return a.to.prefix_bits > b.to.prefix_bits;
      return a.metric < b.metric;
    });
    return 0;
  }
  return EINTR;
}

void XdpNeighbours::add_route(const NetlinkMessage& message,
                              std::vector<RouteEntry>& routes) const {
  const auto header = message.header<rtmsg>();
  if (message.type() != RTM_NEWROUTE || !header || routes.size() == kRoutesMax) return;
  const uint32_t table = message.word<rtmsg>(RTA_TABLE).value_or(header->rtm_table);
  if (table != RT_TABLE_MAIN || header->rtm_type != RTN_UNICAST ||
      (header->rtm_flags & (RTM_F_CLONED | RTNH_F_DEAD | RTNH_F_LINKDOWN)) != 0) {
    return;
  }
  RouteEntry route;
  route.to.address.version = header->rtm_family == AF_INET ? 4 : 6;
  route.to.prefix_bits = header->rtm_dst_len;
  if (const auto to = message.address<rtmsg>(RTA_DST)) route.to.address = *to;
  route.metric = message.word<rtmsg>(RTA_PRIORITY).value_or(0);
  const auto set_via = [&](std::span<const uint8_t> gateway, std::span<const uint8_t> other) {
    // RTA_VIA: a gateway of the other IP version, behind its address family.
    if (gateway.empty() && other.size() > 2) gateway = other.subspan(2);
    if (gateway.size() != 4 && gateway.size() != 16) return;
    route.via = IpAddress::from_bytes(gateway.size() == 4 ? 4 : 6, gateway.data());
    route.has_via = true;
  };
  bool ours = false;
  if (message.word<rtmsg>(RTA_OIF) == static_cast<uint32_t>(interface_index_)) {
    set_via(message.attribute<rtmsg>(RTA_GATEWAY), message.attribute<rtmsg>(RTA_VIA));
    ours = true;
  }
  // Of several ways the first one through this interface.
  std::span<const uint8_t> ways = message.attribute<rtmsg>(RTA_MULTIPATH);
  while (!ours && ways.size() >= sizeof(rtnexthop)) {
    rtnexthop way;
    std::memcpy(&way, ways.data(), sizeof way);
    if (way.rtnh_len < sizeof way || way.rtnh_len > ways.size()) break;
    if (way.rtnh_ifindex == interface_index_ &&
        (way.rtnh_flags & (RTNH_F_DEAD | RTNH_F_LINKDOWN)) == 0) {
      const auto details = ways.subspan(sizeof way, way.rtnh_len - sizeof way);
      set_via(NetlinkMessage::attribute_in(details, RTA_GATEWAY),
              NetlinkMessage::attribute_in(details, RTA_VIA));
      ours = true;
    }
    ways = ways.subspan(std::min(ways.size(), static_cast<size_t>(RTNH_ALIGN(way.rtnh_len))));
  }
  if (ours) routes.push_back(route);
}

int XdpNeighbours::read_neighbours() {
  for (int tries = 0; tries < kDumpTries; ++tries) {
    ndmsg header = {};
    header.ndm_family = AF_UNSPEC;
    NetlinkRequest get(RTM_GETNEIGH, 0, header);
    get.attribute(NDA_IFINDEX, static_cast<uint32_t>(interface_index_));
    const int error =
        requests_.dump(get, [&](const NetlinkMessage& message) { take_neighbour(message); });
    if (error != EINTR) return error;
  }
  return EINTR;
}

void XdpNeighbours::take_neighbour(const NetlinkMessage& message) {
  const auto header = message.header<ndmsg>();
  const auto address = message.address<ndmsg>(NDA_DST);
  if (!header || !address || header->ndm_ifindex != interface_index_ ||
      (header->ndm_flags & NTF_PROXY) != 0) {
    return;
  }
  const std::span<const uint8_t> mac = message.attribute<ndmsg>(NDA_LLADDR);
  const bool usable = message.type() == RTM_NEWNEIGH && (header->ndm_state & kUsable) != 0 &&
                      mac.size() == MacAddress::kBytes;
  const auto found = by_address_.find(*address);
  if (!usable) {
    if (found == by_address_.end()) return;
    Neighbour& neighbour = table_[found->second];
    const bool failed = (header->ndm_state & NUD_FAILED) != 0 || message.type() == RTM_DELNEIGH;
    if (failed || neighbour.parked_count == 0) neighbour.state = State::kUnknown;
    if (failed && neighbour.parked_count > 0) {
      ++tally_.failed;
      release_parked(neighbour, false);
    }
    return;
  }
  const uint32_t index = found == by_address_.end() ? entry_of(*address) : found->second;
  if (index == kNeighboursMax) return;
  Neighbour& neighbour = table_[index];
  if (neighbour.state == State::kUnknown) ++tally_.resolved;
  neighbour.mac = MacAddress::from_bytes(mac.data());
  neighbour.state = (header->ndm_state & NUD_STALE) != 0 ? State::kStale : State::kFresh;
  release_parked(neighbour, true);
}

void XdpNeighbours::take_news(const NetlinkMessage& message) {
  switch (message.type()) {
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH:
      take_neighbour(message);
      break;
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
      routes_changed_ = true;
      break;
    case RTM_NEWLINK: {
      // An interface that goes down takes its routes along without a word about them.
      const auto header = message.header<ifinfomsg>();
      if (header && header->ifi_index == interface_index_) routes_changed_ = true;
      break;
    }
    default:
      break;
  }
}

void XdpNeighbours::follow(uint64_t now_us) {
  const int error = news_.events([&](const NetlinkMessage& message) { take_news(message); });
  if (error == ENOBUFS) {  // news were lost: read it all again
    routes_changed_ = true;
    (void)read_neighbours();
  }
  tick(now_us);
}

uint64_t XdpNeighbours::deadline_us() const {
  uint64_t deadline = UINT64_MAX;
  if (routes_changed_) deadline = routes_read_us_ + kRoutesAgainUs;
  for (const uint32_t index : waiting_) deadline = std::min(deadline, table_[index].give_up_us);
  return deadline;
}

void XdpNeighbours::tick(uint64_t now_us) {
  if (routes_changed_ && now_us >= routes_read_us_ + kRoutesAgainUs) {
    routes_changed_ = read_routes() != 0;
    routes_read_us_ = now_us;
  }
  for (size_t i = 0; i < waiting_.size();) {
    Neighbour& neighbour = table_[waiting_[i]];
    if (neighbour.give_up_us > now_us) {
      ++i;
      continue;
    }
    ++tally_.failed;
    release_parked(neighbour, false);  // takes it out of `waiting_`
  }
}

void XdpNeighbours::give_up() {
  while (!waiting_.empty()) release_parked(table_[waiting_.back()], false);
}

const XdpNeighbours::RouteEntry* XdpNeighbours::route_to(uint8_t version,
                                                         const uint8_t* destination) const {
  for (const RouteEntry& route : version == 4 ? routes4_ : routes6_) {
    if (route.to.contains(version, destination)) return &route;
  }
  return nullptr;
}

XdpNeighbours::NextHop XdpNeighbours::find(uint8_t version, const uint8_t* destination,
                                           uint64_t now_us) {
  // Any mixture will do: a collision costs a look into the tables.
  uint32_t mixed = version == 4 ? 0 : wire::load32(destination + 4) ^ wire::load32(destination + 8);
  mixed ^= wire::load32(destination + (version == 4 ? 0 : 12)) ^ key_.low;
  Cached& cached = cache_[(mixed * 0x9e3779b1u) >> 22];
  if (cached.generation == generation_ && cached.destination.version == version &&
      std::memcmp(cached.destination.bytes.data(), destination, version == 4 ? 4 : 16) == 0) {
    return hop_of(cached.neighbour, now_us);
  }
  if (own_.contains(version, destination)) return {};
  const RouteEntry* route = route_to(version, destination);
  if (route == nullptr) return {};
  const IpAddress address = IpAddress::from_bytes(version, destination);
  const uint32_t index = entry_of(route->has_via ? route->via : address);
  if (index == kNeighboursMax) return {Answer::kFull, 0, {}};
  cached = {generation_, index, address};
  return hop_of(index, now_us);
}

XdpNeighbours::NextHop XdpNeighbours::hop_of(uint32_t index, uint64_t now_us) {
  Neighbour& neighbour = table_[index];
  if (neighbour.state == State::kUnknown) {
    if (now_us >= neighbour.asked_us + kAskMissingAgainUs) ask(neighbour, now_us);
    return {Answer::kUnknown, index, {}};
  }
  if (neighbour.state == State::kStale && now_us >= neighbour.asked_us + kAskAgainUs) {
    ask(neighbour, now_us);
  }
  return {Answer::kKnown, index, neighbour.mac};
}

bool XdpNeighbours::park(uint32_t index, const XdpParkedFrame& frame, uint64_t now_us) {
  Neighbour& neighbour = table_[index];
  if (parked_ == kParkedMax || neighbour.parked_count == kParkedPerNeighbour) return false;
  if (neighbour.parked_count == 0) {
    neighbour.give_up_us = now_us + kParkedUs;
    waiting_.push_back(index);
  }
  neighbour.parked[neighbour.parked_count++] = frame;
  ++parked_;
  return true;
}

void XdpNeighbours::release_parked(Neighbour& neighbour, bool resolved) {
  if (neighbour.parked_count == 0) return;
  const auto index = static_cast<uint32_t>(&neighbour - table_.data());
  waiting_.erase(std::find(waiting_.begin(), waiting_.end(), index));
  parked_ -= neighbour.parked_count;
  for (size_t i = 0; i < neighbour.parked_count; ++i) {
    if (resolved) {
      owner_.resolved(neighbour.parked[i], neighbour.mac);
    } else {
      owner_.unreachable(neighbour.parked[i]);
    }
  }
  neighbour.parked_count = 0;
}

uint32_t XdpNeighbours::entry_of(const IpAddress& address) {
  if (const auto found = by_address_.find(address); found != by_address_.end()) {
    return found->second;
  }
  if (free_.empty() && !make_room()) return kNeighboursMax;
  const uint32_t index = free_.back();
  free_.pop_back();
  table_[index] = {};
  table_[index].address = address;
  table_[index].used = true;
  by_address_.emplace(address, index);
  return index;
}

// Lets one neighbour go that is not known, else one that the kernel has not confirmed lately.
bool XdpNeighbours::make_room() {
  for (const State wanted : {State::kUnknown, State::kStale}) {
    for (size_t i = 0; i < table_.size(); ++i) {
      clock_hand_ = (clock_hand_ + 1) % table_.size();
      const Neighbour& neighbour = table_[clock_hand_];
      if (!neighbour.used || neighbour.state != wanted || neighbour.parked_count > 0) continue;
      forget(static_cast<uint32_t>(clock_hand_));
      return true;
    }
  }
  return false;
}

void XdpNeighbours::forget(uint32_t index) {
  by_address_.erase(table_[index].address);
  table_[index].used = false;
  free_.push_back(index);
  ++generation_;
}

// `ip neigh add ADDRESS dev INTERFACE use`: the kernel resolves it, or confirms what it has.
void XdpNeighbours::ask(Neighbour& neighbour, uint64_t now_us) {
  if (now_us >= ask_window_us_ + kAskWindowUs) {
    ask_window_us_ = now_us;
    asked_in_window_ = 0;
  }
  if (asked_in_window_ == kAsksPerWindow) return;
  ++asked_in_window_;
  neighbour.asked_us = now_us;
  ++tally_.asked;
  ndmsg header = {};
  header.ndm_family = neighbour.address.version == 4 ? AF_INET : AF_INET6;
  header.ndm_ifindex = interface_index_;
  header.ndm_flags = NTF_USE;
  NetlinkRequest use(RTM_NEWNEIGH, NLM_F_CREATE, header);
  use.attribute(NDA_DST, neighbour.address);
  // A refusal (a full table of the kernel's) is told by the silence that follows.
  (void)requests_.request(use);
}

XdpNeighbours::Tally XdpNeighbours::take_tally() {
  const Tally tally = tally_;
  tally_ = {};
  return tally;
}

}  // namespace apo
