// What a station does about ARP and Neighbour Discovery that it hears.
#include <algorithm>

#include "ethernet/station.h"

namespace apo {
namespace {

IpAddress all_nodes() {
  IpAddress group;
  group.version = 6;
  group.bytes[0] = 0xff;
  group.bytes[1] = 0x02;
  group.bytes[15] = 1;
  return group;
}

}  // namespace

bool Station::input(uint16_t type, const MacAddress& from, std::span<const uint8_t> payload,
                    uint64_t now_us, StationOutput& out) {
  const bool arp = type == ethertype::kArp;
  if (!arp && (type != ethertype::kIpv6 || !NdpMessage::recognise(payload))) return false;
  if (from == config_.mac) return true;  // our own words, come back
  out_ = &out;
  if (arp) {
    arp_input(payload, now_us);
  } else {
    ndp_input(from, payload, now_us);
  }
  return true;
}

void Station::arp_input(std::span<const uint8_t> payload, uint64_t now_us) {
  const auto message = ArpMessage::parse(payload);
  if (!message) {
    count(LinkCounter::kNeighbourInvalid, 1);
    return;
  }
  if (message->sender_mac == config_.mac) return;
  if (is_own(message->sender)) {
    conflict(message->sender, now_us);
    return;
  }
  const bool for_us = is_own(message->target);
  const bool reply = message->operation == ArpMessage::kReply;
  if (!message->is_probe()) {
    const bool solicited = reply && for_us && message->target_mac == config_.mac;
    const bool known = neighbours_.learn(
        message->sender, {.mac = message->sender_mac, .solicited = solicited}, now_us, *this);
    if (!known && reply) count(LinkCounter::kNeighbourIgnored, 1);
  } else if (for_us) {
    count(LinkCounter::kNeighbourConflicts, 1);  // it wants our address; the answer says no
  }
  if (reply || !for_us) return;
  ArpMessage answer;
  answer.operation = ArpMessage::kReply;
  answer.sender_mac = config_.mac;
  answer.sender = message->target;
  answer.target_mac = message->sender_mac;
  answer.target = message->sender;
  count(LinkCounter::kNeighbourAnswers, 1);
  send_arp(message->sender_mac, answer);
}

void Station::ndp_input(const MacAddress& from, std::span<const uint8_t> payload, uint64_t now_us) {
  const auto message = NdpMessage::parse(payload);
  if (!message) {
    count(LinkCounter::kNeighbourInvalid, 1);
    return;
  }
  if (message->link_layer == config_.mac) return;
  switch (message->type) {
    case NdpType::kNeighbourSolicitation:
      return solicitation(*message, from, now_us);
    case NdpType::kNeighbourAdvertisement:
      return advertisement(*message, now_us);
    case NdpType::kRouterAdvertisement:
      return router_advertisement(*message, now_us);
    case NdpType::kRouterSolicitation:
      return;  // we are no router
    case NdpType::kRedirect:
      return count(LinkCounter::kNeighbourIgnored, 1);
  }
}

void Station::solicitation(const NdpMessage& message, const MacAddress& from, uint64_t now_us) {
  const bool nobody = message.from_nobody();
  if (!nobody && is_own(message.source)) {
    conflict(message.source, now_us);
    return;
  }
  if (!nobody && message.link_layer) {
    neighbours_.learn(message.source, {.mac = message.link_layer}, now_us, *this);
  }
  if (!is_own(message.target)) return;
  // From nobody: it detects duplicates, and our answer is what it listens for (RFC 4862 5.4.4).
  if (nobody) count(LinkCounter::kNeighbourConflicts, 1);
  NdpMessage answer;
  answer.type = NdpType::kNeighbourAdvertisement;
  answer.source = message.target;
  answer.destination = nobody ? all_nodes() : message.source;
  answer.target = message.target;
  answer.solicited = !nobody;
  answer.override = true;
  answer.link_layer = config_.mac;
  count(LinkCounter::kNeighbourAnswers, 1);
  send_ndp(nobody ? multicast_mac(answer.destination) : message.link_layer.value_or(from), answer);
}

void Station::advertisement(const NdpMessage& message, uint64_t now_us) {
  if (is_own(message.target)) {
    conflict(message.target, now_us);
    return;
  }
  const bool known = neighbours_.learn(
      message.target,
      {.mac = message.link_layer, .solicited = message.solicited, .override = message.override},
      now_us, *this);
  if (!known) {
    count(LinkCounter::kNeighbourIgnored, 1);
  } else if (message.solicited && !message.router) {
    (void)hops_.set_router(message.target, 0);  // a router no longer (RFC 4861 7.2.5)
  }
}

void Station::router_advertisement(const NdpMessage& message, uint64_t now_us) {
  if (!listens_to_routers_) {
    count(LinkCounter::kNeighbourIgnored, 1);
    return;
  }
  router_heard_ = true;
  const auto until = [&](uint64_t seconds) -> uint64_t {
    return seconds == 0 ? 0 : now_us + seconds * 1'000'000;
  };
  bool room = hops_.set_router(message.source, until(message.router_seconds));
  for (size_t i = 0; i < message.prefix_count; ++i) {
    const OnLinkPrefix& announced = message.prefixes[i];
    const uint64_t seconds = announced.valid_seconds;
    room &= hops_.set_on_link(announced.prefix, until(seconds));
  }
  if (!room) count(LinkCounter::kNeighbourIgnored, 1);
  if (message.link_layer) {
    neighbours_.learn(message.source, {.mac = message.link_layer}, now_us, *this);
  }
  if (message.mtu == 0) return;
  if (message.mtu < kMtuMin || message.mtu > config_.mtu) {
    count(LinkCounter::kNeighbourInvalid, 1);  // neither smaller nor larger than can be
  } else {
    mtu_ = message.mtu;
  }
}

void Station::conflict(const IpAddress& address, uint64_t now_us) {
  count(LinkCounter::kNeighbourConflicts, 1);
  // Once in ten seconds, so that two who both defend do not fill the link (RFC 5227 2.4 b).
  if (defended_us_ != 0 && now_us - defended_us_ < kDefendUs) return;
  defended_us_ = now_us;
  announce(address);
}

}  // namespace apo
