#include "ethernet/station.h"

#include <algorithm>

#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace apo {
namespace {

// What is done when the link has come up, and how long after it.
enum class StartAction : uint8_t { kProbe, kAnnounce, kAskRouters };
struct StartStep {
  uint64_t after_us;
  StartAction action;
};
// Two announcements 2 s apart (RFC 5227 2.3); up to three questions for routers 4 s apart (RFC 4861
// 10), until one has answered.
constexpr StartStep kStartSteps[] = {
    {0, StartAction::kProbe},
    {0, StartAction::kAskRouters},
    {1'000'000, StartAction::kAnnounce},
    {3'000'000, StartAction::kAnnounce},
    {4'000'000, StartAction::kAskRouters},
    {8'000'000, StartAction::kAskRouters},
};

IpAddress ipv6_group(uint8_t last) {
  IpAddress group;
  group.version = 6;
  group.bytes[0] = 0xff;
  group.bytes[1] = 0x02;
  group.bytes[15] = last;
  return group;
}

const IpAddress kAllNodes = ipv6_group(1);
const IpAddress kAllRouters = ipv6_group(2);

IpAddress nobody(uint8_t version) {
  IpAddress address;
  address.version = version;
  return address;
}

}  // namespace

Station::Station(const StationConfig& config)
    : config_(config),
      hops_(config.addresses),
      neighbours_(config.key, config.neighbours),
      mtu_(config.mtu) {
  bool has6 = false;
  for (size_t i = 0; i < config_.addresses.size(); ++i) {
    has6 |= config_.addresses.at(i).prefix.address.version == 6;
  }
  listens_to_routers_ = has6;
  for (const Route& route : config_.routes) {
    (void)hops_.add_route(route);  // the settings have been held to its limit
    if (route.to.address.version == 6 && route.to.prefix_bits == 0) listens_to_routers_ = false;
  }
}

void Station::start(uint64_t now_us, StationOutput& out) {
  out_ = &out;
  neighbours_.clear(*this);
  started_ = true;
  started_us_ = now_us;
  start_step_ = 0;
  router_heard_ = false;
  while (start_step_ < std::size(kStartSteps) && kStartSteps[start_step_].after_us == 0) {
    run_start_step(now_us);
  }
}

uint64_t Station::deadline_us() const {
  uint64_t soonest = neighbours_.deadline_us();
  if (started_ && start_step_ < std::size(kStartSteps)) {
    soonest = std::min(soonest, started_us_ + kStartSteps[start_step_].after_us);
  }
  return soonest;
}

void Station::tick(uint64_t now_us, StationOutput& out) {
  out_ = &out;
  while (started_ && start_step_ < std::size(kStartSteps) &&
         started_us_ + kStartSteps[start_step_].after_us <= now_us) {
    run_start_step(now_us);
  }
  neighbours_.tick(now_us, *this);
}

void Station::run_start_step(uint64_t /*now_us*/) {
  const StartAction action = kStartSteps[start_step_++].action;
  if (action == StartAction::kAskRouters) {
    if (listens_to_routers_ && !router_heard_) ask_routers();
    return;
  }
  for (size_t i = 0; i < config_.addresses.size(); ++i) {
    const OwnAddress& own = config_.addresses.at(i);
    if (own.whole) continue;
    if (action == StartAction::kProbe) {
      probe(own.prefix.address);
    } else {
      announce(own.prefix.address);
    }
  }
}

Neighbours::Answer Station::route(std::span<const uint8_t> packet, const Offload& offload,
                                  uint64_t now_us, StationOutput& out) {
  out_ = &out;
  const uint8_t version = packet.empty() ? 0 : packet[0] >> 4;
  const bool six = version == 6;
  const size_t header = six ? wire::Ipv6View::kHeaderBytes : wire::Ipv4View::kHeaderBytes;
  if ((!six && version != 4) || packet.size() < header) {
    return {.result = LinkCounter::kTxDroppedDescriptor};
  }
  const IpAddress destination = IpAddress::from_bytes(
      version,
      packet.data() + (six ? wire::ipv6_field::kDestination : wire::ipv4_field::kDestination));
  const NextHop hop = hops_.find(destination, now_us);
  if (hop.kind == NextHop::Kind::kNeighbour) {
    return neighbours_.resolve(hop.address, packet, offload, now_us, *this);
  }
  if (hop.kind == NextHop::Kind::kNone) return {.result = LinkCounter::kTxDroppedNoRoute};
  group_mac_ = hop.mac;
  return {.mac = &group_mac_};
}

bool Station::source_for(const IpAddress& target, IpAddress* source) const {
  const OwnAddress* best = nullptr;
  for (size_t i = 0; i < config_.addresses.size(); ++i) {
    const OwnAddress& own = config_.addresses.at(i);
    if (own.prefix.address.version != target.version) continue;
    const bool beside = !own.whole && own.prefix.contains(target.version, target.bytes.data());
    if (beside || best == nullptr || (best->whole && !own.whole)) best = &own;
    if (beside) break;
  }
  if (best == nullptr) return false;
  *source = best->prefix.address;
  // A prefix's first address is its network's name or its routers' (RFC 4291 2.6.1): not a sender.
  if (best->whole && best->prefix.prefix_bits < 8 * target.size()) {
    source->bytes[target.size() - 1] |= 1;
  }
  return true;
}

void Station::ask(const IpAddress& address, const MacAddress* last) {
  IpAddress source;
  if (!source_for(address, &source)) return;
  if (address.version == 4) {
    ArpMessage message;
    message.sender_mac = config_.mac;
    message.sender = source;
    message.target = address;
    if (last) message.target_mac = *last;
    send_arp(last ? *last : MacAddress::broadcast(), message);
    return;
  }
  NdpMessage message;
  message.type = NdpType::kNeighbourSolicitation;
  message.source = source;
  message.destination = last ? address : solicited_node(address);
  message.target = address;
  message.link_layer = config_.mac;
  send_ndp(last ? *last : multicast_mac(message.destination), message);
}

void Station::send(const MacAddress& to, std::span<const uint8_t> packet, const Offload& offload) {
  out_->send_packet(to, packet, offload);
}

void Station::failed(const IpAddress& address) { hops_.router_failed(address); }

void Station::count(LinkCounter counter, uint64_t amount) { out_->count(counter, amount); }

void Station::probe(const IpAddress& address) {
  if (address.version == 4) {
    ArpMessage message;
    message.sender_mac = config_.mac;
    message.sender = nobody(4);
    message.target = address;
    send_arp(MacAddress::broadcast(), message);
    return;
  }
  NdpMessage message;  // duplicate address detection (RFC 4862 5.4.2)
  message.type = NdpType::kNeighbourSolicitation;
  message.source = nobody(6);
  message.destination = solicited_node(address);
  message.target = address;
  send_ndp(multicast_mac(message.destination), message);
}

void Station::announce(const IpAddress& address) {
  if (address.version == 4) {
    ArpMessage message;
    message.sender_mac = config_.mac;
    message.sender = address;
    message.target = address;
    send_arp(MacAddress::broadcast(), message);
    return;
  }
  NdpMessage message;  // RFC 4861 7.2.6
  message.type = NdpType::kNeighbourAdvertisement;
  message.source = address;
  message.destination = kAllNodes;
  message.target = address;
  message.override = true;
  message.link_layer = config_.mac;
  send_ndp(multicast_mac(kAllNodes), message);
}

void Station::ask_routers() {
  NdpMessage message;
  message.type = NdpType::kRouterSolicitation;
  message.source = nobody(6);
  message.destination = kAllRouters;
  send_ndp(multicast_mac(kAllRouters), message);
}

void Station::send_arp(const MacAddress& to, const ArpMessage& message) {
  std::array<uint8_t, EthernetView::kHeaderBytes + ArpMessage::kBytes> frame;
  write_ethernet_header(frame.data(), to, config_.mac, ethertype::kArp);
  message.write(frame.data() + EthernetView::kHeaderBytes);
  out_->send_frame(frame);
}

void Station::send_ndp(const MacAddress& to, const NdpMessage& message) {
  std::array<uint8_t, EthernetView::kHeaderBytes + NdpMessage::kWrittenMax> frame;
  write_ethernet_header(frame.data(), to, config_.mac, ethertype::kIpv6);
  const size_t length = message.write(frame.data() + EthernetView::kHeaderBytes);
  out_->send_frame({frame.data(), EthernetView::kHeaderBytes + length});
}

}  // namespace apo
