// ARP, Neighbour Discovery, routing and the start of a station.
#include <algorithm>

#include "station_support.h"

#include "check.h"

namespace apo::test {
namespace {

ArpMessage arp(uint16_t operation, const MacAddress& mac, const IpAddress& from,
               const IpAddress& target, const MacAddress& target_mac = {}) {
  ArpMessage message;
  message.operation = operation;
  message.sender_mac = mac;
  message.sender = from;
  message.target = target;
  message.target_mac = target_mac;
  return message;
}

ArpMessage parse_arp(const Bytes& frame) {
  const auto view = EthernetView::parse(frame);
  CHECK(view && view->type() == ethertype::kArp);
  const auto message = ArpMessage::parse(view->payload());
  CHECK(message);
  return *message;
}

NdpMessage parse_ndp(const Bytes& frame) {
  const auto view = EthernetView::parse(frame);
  CHECK(view && view->type() == ethertype::kIpv6 && NdpMessage::recognise(view->payload()));
  const auto message = NdpMessage::parse(view->payload());
  CHECK(message);
  return *message;
}

void frames_and_groups() {
  CHECK(!EthernetView::parse(Bytes(13)));
  Bytes frame(60);
  write_ethernet_header(frame.data(), kOwnMac, kPeerMac, 0x8100);
  const auto view = EthernetView::parse(frame);
  CHECK(view && view->is_tagged() && view->source() == kPeerMac);
  CHECK(view->destination() == kOwnMac && view->payload().size() == 46);
  frame[6] |= 1;
  CHECK(!EthernetView::parse(frame));
  CHECK(multicast_mac(ip4(224, 129, 2, 3)) == (MacAddress{{1, 0, 0x5e, 1, 2, 3}}));
  CHECK(multicast_mac(solicited_node(ip6(9))) == (MacAddress{{0x33, 0x33, 0xff, 0, 0, 9}}));
  CHECK(MacAddress::broadcast().is_group() && !MacAddress{}.is_station());
}

void answers_arp() {
  Station station(station_config());
  RecordingOutput out;
  const IpAddress peer = ip4(10, 0, 0, 2);
  CHECK(station.input(ethertype::kArp, kPeerMac,
                      arp_payload(arp(1, kPeerMac, peer, ip4(10, 0, 0, 1))), 5, out));
  CHECK(out.frames.size() == 1);
  const ArpMessage answer = parse_arp(out.frames[0]);
  CHECK(answer.operation == ArpMessage::kReply && answer.sender_mac == kOwnMac);
  CHECK(answer.sender == ip4(10, 0, 0, 1) && answer.target == peer);
  CHECK(answer.target_mac == kPeerMac);
  CHECK(EthernetView::parse(out.frames[0])->destination() == kPeerMac);
  // Others' questions are none of ours, and nobody is learnt from a question.
  CHECK(station.input(ethertype::kArp, kPeerMac,
                      arp_payload(arp(1, kPeerMac, peer, ip4(10, 0, 0, 9))), 5, out));
  CHECK(out.frames.size() == 1 && station.neighbours().size() == 0);
  CHECK(out.counted(LinkCounter::kNeighbourAnswers) == 1);
}

void refuses_malformed_arp() {
  const Bytes good = arp_payload(arp(1, kPeerMac, ip4(10, 0, 0, 2), ip4(10, 0, 0, 1)));
  CHECK(ArpMessage::parse(good));
  const auto broken = [&](size_t at, uint8_t value) {
    Bytes bytes = good;
    bytes[at] = value;
    return !ArpMessage::parse(bytes);
  };
  CHECK(broken(1, 6) && broken(2, 0x86) && broken(4, 8) && broken(5, 16) && broken(7, 3));
  CHECK(broken(8, 3));     // a group's hardware address
  CHECK(broken(14, 224));  // a multicast sender
  CHECK(broken(14, 127));
  CHECK(!ArpMessage::parse({good.data(), 27}));
  Station station(station_config());
  RecordingOutput out;
  CHECK(station.input(ethertype::kArp, kPeerMac, {good.data(), 27}, 5, out));
  CHECK(out.counted(LinkCounter::kNeighbourInvalid) == 1 && out.frames.empty());
}

void whole_prefixes_are_answered_for() {
  StationConfig config = station_config();
  config.addresses.add({{ip4(10, 9, 0, 0), 16}, true});
  config.addresses.add({{ip6(0, 0xfd, 9), 64}, true});
  Station station(config);
  RecordingOutput out;
  CHECK(station.input(ethertype::kArp, kPeerMac,
                      arp_payload(arp(1, kPeerMac, ip4(10, 0, 0, 2), ip4(10, 9, 200, 7))), 5, out));
  CHECK(out.frames.size() == 1 && parse_arp(out.frames[0]).sender == ip4(10, 9, 200, 7));
  NdpMessage ask;
  ask.source = ip6(2);
  ask.target = ip6(77, 0xfd, 9);
  ask.destination = solicited_node(ask.target);
  ask.link_layer = kPeerMac;
  CHECK(station.input(ethertype::kIpv6, kPeerMac, ndp_packet(ask), 5, out));
  CHECK(out.frames.size() == 2 && parse_ndp(out.frames[1]).target == ask.target);
  // To one of our own goes nothing.
  const Bytes packet = ipv4(17, Bytes(8), kOwn4, ip4(10, 9, 1, 1).bytes.data());
  CHECK(station.route(packet, {}, 5, out).result == LinkCounter::kTxDroppedNoRoute);
}

void answers_solicitations() {
  Station station(station_config());
  RecordingOutput out;
  NdpMessage ask;
  ask.source = ip6(2);
  ask.target = ip6(1);
  ask.destination = solicited_node(ask.target);
  ask.link_layer = kPeerMac;
  CHECK(station.input(ethertype::kIpv6, kPeerMac, ndp_packet(ask), 5, out));
  NdpMessage answer = parse_ndp(out.frames.at(0));
  CHECK(answer.type == NdpType::kNeighbourAdvertisement && answer.solicited && answer.override);
  CHECK(!answer.router && answer.link_layer == kOwnMac && answer.destination == ip6(2));
  // A unicast probe without the option: back to where the frame came from.
  ask.destination = ask.target;
  ask.link_layer.reset();
  CHECK(station.input(ethertype::kIpv6, kOtherMac, ndp_packet(ask), 5, out));
  CHECK(EthernetView::parse(out.frames.at(1))->destination() == kOtherMac);
  // Duplicate address detection for an address of ours: all are told.
  ask.source = ip6(0, 0);
  ask.source.bytes = {};
  ask.destination = solicited_node(ask.target);
  CHECK(station.input(ethertype::kIpv6, kPeerMac, ndp_packet(ask), 5, out));
  answer = parse_ndp(out.frames.at(2));
  CHECK(!answer.solicited && answer.destination.bytes[1] == 2);
  CHECK(out.counted(LinkCounter::kNeighbourConflicts) == 1);
  CHECK(station.neighbours().size() == 0);
  // Echo requests are not its matter.
  CHECK(!station.input(ethertype::kIpv6, kPeerMac, icmp(true, 128, 0, 1, {}), 5, out));
}

void checks_ndp() {
  NdpMessage ask;
  ask.source = ip6(2);
  ask.target = ip6(1);
  ask.destination = solicited_node(ask.target);
  ask.link_layer = kPeerMac;
  const Bytes good = ndp_packet(ask);
  CHECK(NdpMessage::parse(good));
  const auto broken = [&](size_t at, uint8_t value) {
    Bytes bytes = good;
    bytes[at] = value;
    return !NdpMessage::parse(resummed(bytes));
  };
  CHECK(broken(7, 254));                                   // came through a router
  CHECK(broken(41, 1));                                    // code
  CHECK(broken(48, 0xff));                                 // a multicast target
  CHECK(broken(65, 0) && broken(65, 2) && broken(66, 1));  // the option: empty, long, a group
  Bytes bytes = good;
  bytes[43] ^= 1;
  CHECK(!NdpMessage::parse(bytes));  // checksum
  for (size_t length = 41; length < good.size(); ++length) {
    Bytes cut(good.begin(), good.begin() + static_cast<long>(length));
    wire::store16(&cut[4], static_cast<uint32_t>(length - 40));
    if (length != 64 && length >= 44) CHECK(!NdpMessage::parse(resummed(cut)));
  }
  // From nobody: only to the solicited-node group, and without a hardware address.
  NdpMessage nobody = ask;
  nobody.source.bytes = {};
  CHECK(!NdpMessage::parse(ndp_packet(nobody)));
  nobody.link_layer.reset();
  CHECK(NdpMessage::parse(ndp_packet(nobody)));
  nobody.destination = ip6(1);
  CHECK(!NdpMessage::parse(ndp_packet(nobody)));
  // An advertisement to a group cannot be an answer.
  NdpMessage said;
  said.type = NdpType::kNeighbourAdvertisement;
  said.source = said.target = ip6(2);
  said.destination = ip6(1, 0xff, 2);
  said.solicited = true;
  CHECK(!NdpMessage::parse(ndp_packet(said)));
  said.solicited = false;
  CHECK(NdpMessage::parse(ndp_packet(said)));
}

Bytes router_advertisement(const IpAddress& from, uint16_t seconds, uint32_t mtu,
                           const IpPrefix& prefix, uint32_t valid) {
  Bytes upper = {134, 0, 0, 0, 64, 0};
  upper.resize(16);
  wire::store16(&upper[6], seconds);
  upper.insert(upper.end(), {1, 1, 2, 0, 0, 0, 0, 2});  // source link layer: kPeerMac
  Bytes option = {5, 1, 0, 0, 0, 0, 0, 0};
  wire::store32(&option[4], mtu);
  upper.insert(upper.end(), option.begin(), option.end());
  option = {3, 4, prefix.prefix_bits, 0x80};
  option.resize(32);
  wire::store32(&option[4], valid);
  std::copy_n(prefix.address.bytes.begin(), 16, option.begin() + 16);
  upper.insert(upper.end(), option.begin(), option.end());
  Bytes packet = ipv6(58, upper, from.bytes.data(), ip6(1, 0xff, 2).bytes.data());
  packet[7] = 255;
  return resummed(packet);
}

void follows_routers() {
  Station station(station_config());
  RecordingOutput out;
  const IpAddress router = ip6(1, 0xfe, 0x80);
  const IpAddress far = ip6(5, 0x20, 1);
  const Bytes packet = ipv6(17, Bytes(8), kOwn6, far.bytes.data());
  CHECK(station.route(packet, {}, 5, out).result == LinkCounter::kTxDroppedNoRoute);
  const IpPrefix prefix{ip6(0, 0xfd, 7), 64};
  CHECK(station.input(ethertype::kIpv6, kPeerMac,
                      router_advertisement(router, 60, 1400, prefix, 100), kSecond, out));
  CHECK(station.mtu() == 1400);
  CHECK(station.route(packet, {}, 2 * kSecond, out).result == LinkCounter::kTxParked);
  CHECK(parse_ndp(out.frames.back()).target == router);
  // Its prefix is on the link now, and both end with their lifetimes.
  const Bytes beside = ipv6(17, Bytes(8), kOwn6, ip6(8, 0xfd, 7).bytes.data());
  CHECK(station.route(beside, {}, 2 * kSecond, out).result == LinkCounter::kTxParked);
  CHECK(parse_ndp(out.frames.back()).target == ip6(8, 0xfd, 7));
  CHECK(station.route(packet, {}, 62 * kSecond, out).result == LinkCounter::kTxDroppedNoRoute);
  CHECK(station.route(beside, {}, 102 * kSecond, out).result == LinkCounter::kTxDroppedNoRoute);
  // An MTU below IPv6's least, or above the link's, is no MTU.
  for (const uint32_t mtu : {1279u, 1501u, 0xffffffffu}) {
    CHECK(station.input(ethertype::kIpv6, kPeerMac,
                        router_advertisement(router, 60, mtu, prefix, 100), kSecond, out));
    CHECK(station.mtu() == 1400);
  }
  CHECK(out.counted(LinkCounter::kNeighbourInvalid) == 3);
  // Only a link-local source is a router's.
  CHECK(station.input(ethertype::kIpv6, kPeerMac,
                      router_advertisement(ip6(3), 60, 1300, prefix, 100), kSecond, out));
  CHECK(station.mtu() == 1400 && out.counted(LinkCounter::kNeighbourInvalid) == 4);
  // A gateway of the settings has the last word.
  StationConfig config = station_config();
  config.routes.push_back({{IpAddress{6, {}}, 0}, ip6(9)});
  Station settled(config);
  CHECK(settled.input(ethertype::kIpv6, kPeerMac,
                      router_advertisement(router, 60, 1300, prefix, 100), kSecond, out));
  CHECK(settled.route(packet, {}, 2 * kSecond, out).result == LinkCounter::kTxParked);
  CHECK(parse_ndp(out.frames.back()).target == ip6(9) && settled.mtu() == 1500);
}

void routes_by_the_longest_prefix() {
  AddressSet own;
  own.add({{ip4(10, 0, 0, 1), 24}});
  NextHopTable table(own);
  CHECK(table.add_route({{ip4(0, 0, 0, 0), 0}, ip4(10, 0, 0, 254)}));
  CHECK(table.add_route({{ip4(192, 0, 2, 0), 24}, ip4(10, 0, 0, 253)}));
  CHECK(table.add_route({{ip4(192, 0, 2, 128), 25}, ip4(10, 0, 0, 252)}));
  CHECK(!table.add_route({{ip4(192, 0, 2, 0), 24}, ip6(1)}));
  using Kind = NextHop::Kind;
  CHECK(table.find(ip4(10, 0, 0, 7), 0).address == ip4(10, 0, 0, 7));
  CHECK(table.find(ip4(192, 0, 2, 1), 0).address == ip4(10, 0, 0, 253));
  CHECK(table.find(ip4(192, 0, 2, 129), 0).address == ip4(10, 0, 0, 252));
  CHECK(table.find(ip4(8, 8, 8, 8), 0).address == ip4(10, 0, 0, 254));
  CHECK(table.find(ip4(10, 0, 0, 1), 0).kind == Kind::kNone);
  CHECK(table.find(ip4(127, 0, 0, 1), 0).kind == Kind::kNone);
  CHECK(table.find(ip4(0, 0, 0, 0), 0).kind == Kind::kNone);
  CHECK(table.find(ip4(10, 0, 0, 255), 0).mac == MacAddress::broadcast());
  CHECK(table.find(ip4(255, 255, 255, 255), 0).mac == MacAddress::broadcast());
  CHECK(table.find(ip4(224, 0, 0, 1), 0).mac == multicast_mac(ip4(224, 0, 0, 1)));
  CHECK(table.find(ip6(5), 0).kind == Kind::kNone);
  for (size_t i = 3; i < NextHopTable::kRoutesMax; ++i) {
    CHECK(table.add_route({{ip4(100, 0, 0, 0), 8}, ip4(10, 0, 0, 2)}));
  }
  CHECK(!table.add_route({{ip4(100, 0, 0, 0), 8}, ip4(10, 0, 0, 2)}));
  for (uint8_t i = 0; i < NextHopTable::kRoutersMax; ++i) CHECK(table.set_router(ip6(i), 10));
  CHECK(!table.set_router(ip6(99), 10));
  CHECK(table.find(ip6(5, 0x20), 5).address == ip6(0));
  table.router_failed(ip6(0));
  CHECK(table.find(ip6(5, 0x20), 5).address == ip6(1));
  CHECK(table.set_router(ip6(1), 0) && !table.is_router(ip6(1)));
  for (uint8_t i = 0; i < NextHopTable::kAnnouncedPrefixesMax; ++i) {
    CHECK(table.set_on_link({ip6(0, 0xfc, i), 64}, 10));
  }
  CHECK(!table.set_on_link({ip6(0, 0xfb), 64}, 10));
}

void starts_and_defends() {
  Station station(station_config());
  RecordingOutput out;
  CHECK(station.deadline_us() == Station::kNever);
  station.start(kSecond, out);
  CHECK(out.frames.size() == 3);  // ARP probe, duplicate address detection, router solicitation
  CHECK(parse_arp(out.frames[0]).is_probe());
  CHECK(parse_ndp(out.frames[1]).from_nobody());
  CHECK(parse_ndp(out.frames[2]).type == NdpType::kRouterSolicitation);
  CHECK(station.deadline_us() == 2 * kSecond);
  station.tick(2 * kSecond, out);
  CHECK(out.frames.size() == 5);
  CHECK(parse_arp(out.frames[3]).is_announcement() && !parse_ndp(out.frames[4]).solicited);
  station.tick(20 * kSecond, out);
  CHECK(out.frames.size() == 9 && station.deadline_us() == Station::kNever);
  // Somebody else says that it has our address: counted, defended, but not for ever.
  const Bytes theirs = arp_payload(arp(1, kPeerMac, ip4(10, 0, 0, 1), ip4(10, 0, 0, 1)));
  CHECK(station.input(ethertype::kArp, kPeerMac, theirs, 30 * kSecond, out));
  CHECK(station.input(ethertype::kArp, kPeerMac, theirs, 31 * kSecond, out));
  CHECK(out.frames.size() == 10 && out.counted(LinkCounter::kNeighbourConflicts) == 2);
  CHECK(station.input(ethertype::kArp, kPeerMac, theirs, 41 * kSecond, out));
  CHECK(out.frames.size() == 11);
  NdpMessage said;
  said.type = NdpType::kNeighbourAdvertisement;
  said.source = ip6(2);
  said.target = ip6(1);
  said.destination = ip6(1, 0xff, 2);
  said.link_layer = kPeerMac;
  CHECK(station.input(ethertype::kIpv6, kPeerMac, ndp_packet(said), 42 * kSecond, out));
  CHECK(out.counted(LinkCounter::kNeighbourConflicts) == 4);
  // What we said ourselves and hear again is no conflict.
  CHECK(station.input(ethertype::kArp, kOwnMac, theirs, 43 * kSecond, out));
  CHECK(out.counted(LinkCounter::kNeighbourConflicts) == 4);
}

void resolves_both_versions() {
  Station station(station_config());
  RecordingOutput out;
  const Bytes four = udp(false, 1, 2, {1, 2, 3});
  Bytes to_peer4 = ipv4(17, Bytes(8), kOwn4, kPeer4);
  Bytes to_peer6 = ipv6(17, Bytes(8), kOwn6, kPeer6);
  CHECK(station.route(to_peer4, {}, 0, out).result == LinkCounter::kTxParked);
  CHECK(station.route(to_peer6, {}, 0, out).result == LinkCounter::kTxParked);
  const ArpMessage request = parse_arp(out.frames.at(0));
  CHECK(request.operation == 1 && request.sender == ip4(10, 0, 0, 1));
  CHECK(request.target == ip4(10, 0, 0, 2));
  CHECK(station.input(ethertype::kArp, kPeerMac,
                      arp_payload(arp(2, kPeerMac, request.target, request.sender, kOwnMac)), 1,
                      out));
  const NdpMessage question = parse_ndp(out.frames.at(1));
  CHECK(question.target == ip6(2) && question.source == ip6(1) && question.link_layer == kOwnMac);
  CHECK(question.destination == solicited_node(ip6(2)));
  NdpMessage answer;
  answer.type = NdpType::kNeighbourAdvertisement;
  answer.source = answer.target = ip6(2);
  answer.destination = ip6(1);
  answer.solicited = answer.override = true;
  answer.link_layer = kOtherMac;
  CHECK(station.input(ethertype::kIpv6, kOtherMac, ndp_packet(answer), 1, out));
  CHECK(out.packets.size() == 2);
  CHECK(out.packets[0].to == kPeerMac && out.packets[0].packet == to_peer4);
  CHECK(out.packets[1].to == kOtherMac && out.packets[1].packet == to_peer6);
  const auto known = station.route(to_peer4, {}, 2, out);
  CHECK(known.mac && *known.mac == kPeerMac);
  CHECK(station.route({four.data(), 10}, {}, 2, out).result == LinkCounter::kTxDroppedDescriptor);
}

}  // namespace
}  // namespace apo::test

int main() {
  using namespace apo::test;
  frames_and_groups();
  answers_arp();
  refuses_malformed_arp();
  whole_prefixes_are_answered_for();
  answers_solicitations();
  checks_ndp();
  follows_routers();
  routes_by_the_longest_prefix();
  starts_and_defends();
  resolves_both_versions();
}
