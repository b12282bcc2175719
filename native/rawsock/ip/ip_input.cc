#include "ip/ip_input.h"

#include <cstring>

#include "guard/tcp_rules.h"
#include "wire/checksum.h"
#include "wire/icmp.h"
#include "wire/igmp.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/tcp.h"
#include "wire/udp.h"

namespace apo {
namespace {

using wire::Ipv4View;
using wire::Ipv6View;

bool drop(InputPacket& packet, LinkCounter reason) {
  packet.kind = InputKind::kDropped;
  packet.drop_reason = reason;
  return false;
}

// Options must be well formed; source routes are refused (RFC 6274 3.13.2.3).
bool ipv4_options_are_acceptable(std::span<const uint8_t> options) {
  constexpr uint8_t kEnd = 0, kNop = 1, kLooseSourceRoute = 131, kStrictSourceRoute = 137;
  size_t at = 0;
  while (at < options.size()) {
    const uint8_t type = options[at];
    if (type == kEnd) return true;
    if (type == kNop) {
      ++at;
      continue;
    }
    if (type == kLooseSourceRoute || type == kStrictSourceRoute) return false;
    if (options.size() - at < 2) return false;
    const size_t length = options[at + 1];
    if (length < 2 || length > options.size() - at) return false;
    at += length;
  }
  return true;
}

// Nobody may send from "this network", loopback, multicast or the limited broadcast (RFC
// 1122 3.2.1.3).
bool ipv4_source_is_acceptable(const uint8_t* source) {
  return source[0] != 0 && source[0] != 127 && source[0] < 224;
}

// Nor from a multicast address, the unspecified one or loopback (RFC 4291 2.5, 2.7).
bool ipv6_source_is_acceptable(const uint8_t* source) {
  static constexpr uint8_t kZeros[15] = {};
  if (source[0] == 0xff) return false;
  return std::memcmp(source, kZeros, sizeof kZeros) != 0 || source[15] > 1;
}

// Who has no address yet may report groups, and ask for neighbours: no offence, and nothing for us.
bool is_unspecified6(const uint8_t* address) {
  static constexpr uint8_t kNone[16] = {};
  return std::memcmp(address, kNone, sizeof kNone) == 0;
}

// A packet to a group that we have joined, or to one at all: then it may be a query.
bool group_is_wanted(const GroupView* groups, uint8_t version, const uint8_t* destination,
                     const uint8_t* source, uint8_t protocol) {
  if (groups == nullptr || groups->empty()) return false;
  const uint8_t queries = version == 4 ? wire::ip_protocol::kIgmp : wire::ip_protocol::kIcmpv6;
  return protocol == queries || groups->contains(version, destination, source);
}

bool check_ipv4(std::span<const uint8_t> bytes, const AddressSet& own, const GroupView* groups,
                InputPacket& packet) {
  const auto ip = Ipv4View::parse(bytes);
  if (!ip) return drop(packet, LinkCounter::kRxDroppedHeader);
  if (!wire::checksum_is_valid(wire::checksum_add(0, bytes.data(), ip->header_bytes()))) {
    return drop(packet, LinkCounter::kRxDroppedHeaderChecksum);
  }
  if (!ipv4_options_are_acceptable(ip->options())) {
    return drop(packet, LinkCounter::kRxDroppedOptions);
  }
  packet.to_group = ip->destination()[0] >> 4 == 14;
  if (packet.to_group && wire::load32(ip->source()) == 0) {
    return drop(packet, LinkCounter::kRxDroppedGroup);
  }
  if (!ipv4_source_is_acceptable(ip->source())) return drop(packet, LinkCounter::kRxDroppedSource);
  if (packet.to_group) {
    if (!group_is_wanted(groups, 4, ip->destination(), ip->source(), ip->protocol())) {
      return drop(packet, LinkCounter::kRxDroppedGroup);
    }
  } else if (!own.contains(4, ip->destination())) {
    return drop(packet, LinkCounter::kRxDroppedNotOurs);
  }
  packet.version = 4;
  packet.protocol = ip->protocol();
  packet.hop_limit = ip->ttl();
  packet.traffic_class = ip->traffic_class();
  packet.length = static_cast<uint32_t>(ip->total_length());
  packet.upper_offset = static_cast<uint32_t>(ip->header_bytes());
  packet.source = ip->source();
  packet.destination = ip->destination();
  if (ip->is_fragment()) packet.kind = InputKind::kFragment;
  return true;
}

bool check_ipv6(std::span<const uint8_t> bytes, const AddressSet& own, const GroupView* groups,
                InputPacket& packet) {
  const auto ip = Ipv6View::parse(bytes);
  if (!ip) return drop(packet, LinkCounter::kRxDroppedHeader);
  packet.to_group = ip->destination()[0] == 0xff;
  if (packet.to_group && is_unspecified6(ip->source())) {
    return drop(packet, LinkCounter::kRxDroppedGroup);
  }
  if (!ipv6_source_is_acceptable(ip->source())) return drop(packet, LinkCounter::kRxDroppedSource);
  if (!packet.to_group && !own.contains(6, ip->destination())) {
    return drop(packet, LinkCounter::kRxDroppedNotOurs);
  }
  const wire::Ipv6UpperLayer upper = wire::ipv6_upper_layer(*ip);
  if (packet.to_group &&
      !group_is_wanted(groups, 6, ip->destination(), ip->source(), upper.protocol)) {
    return drop(packet, LinkCounter::kRxDroppedGroup);
  }
  using State = wire::Ipv6UpperLayer::State;
  if (upper.state == State::kNone) return drop(packet, LinkCounter::kRxDroppedProtocol);
  if (upper.state == State::kFragment) {
    packet.kind = InputKind::kFragment;
  } else if (upper.state != State::kFound) {
    return drop(packet, LinkCounter::kRxDroppedExtension);
  }
  packet.version = 6;
  packet.protocol = upper.protocol;
  packet.hop_limit = ip->hop_limit();
  packet.traffic_class = ip->traffic_class();
  packet.flow_label = ip->flow_label();
  packet.length = static_cast<uint32_t>(ip->total_length());
  packet.upper_offset = static_cast<uint32_t>(upper.offset);
  packet.next_header_offset = static_cast<uint32_t>(upper.next_header_field);
  packet.source = ip->source();
  packet.destination = ip->destination();
  return true;
}

// The sum over the pseudo header; source and destination are neighbours in both IP headers.
wire::Sum pseudo_sum(const InputPacket& packet, size_t length) {
  return wire::checksum_pseudo_header(packet.source, packet.address_bytes(),
                                      static_cast<uint32_t>(length), packet.protocol);
}

void set_flow(InputPacket& packet, uint16_t source_port, uint16_t destination_port) {
  packet.flow_source = packet.source;
  packet.flow_destination = packet.destination;
  packet.flow_protocol = packet.protocol;
  packet.flow_source_port = source_port;
  packet.flow_destination_port = destination_port;
}

bool is_partial(const Offload& offload) {
  return offload.checksum_state == ChecksumState::kPartial;
}

// From one end to the same (RFC 9293 3.10.7.2's "land", and UDP's likewise).
bool is_land(const InputPacket& packet) {
  return packet.flow_source_port == packet.flow_destination_port &&
         same_address(packet.version, packet.source, packet.destination);
}

void check_tcp(std::span<const uint8_t> payload, const Offload& offload, InputPacket& packet) {
  const auto tcp = wire::TcpView::parse(payload);
  if (const LinkCounter reason = check_tcp_header(tcp); reason != LinkCounter::kRxPackets) {
    drop(packet, reason);
    return;
  }
  if (is_partial(offload)) {
    packet.checksum_state = ChecksumState::kPartial;
  } else {
    const wire::Sum sum =
        wire::checksum_add(pseudo_sum(packet, payload.size()), payload.data(), payload.size());
    if (!wire::checksum_is_valid(sum)) {
      drop(packet, LinkCounter::kRxDroppedTcpChecksum);
      return;
    }
    packet.checksum_state = ChecksumState::kVerified;
  }
  packet.upper_length = static_cast<uint32_t>(payload.size());
  set_flow(packet, tcp->source_port(), tcp->destination_port());
  if (is_land(packet)) {
    drop(packet, LinkCounter::kRxDroppedLand);
    return;
  }
  packet.kind = InputKind::kTcp;
}

void check_udp(std::span<const uint8_t> payload, const Offload& offload, InputPacket& packet) {
  const auto udp = wire::UdpView::parse(payload);
  if (!udp) {
    drop(packet, LinkCounter::kRxDroppedUdpLength);
    return;
  }
  if (is_partial(offload)) {
    packet.checksum_state = ChecksumState::kPartial;
  } else if (udp->checksum() == 0) {
    // "No checksum" is IPv4's alone (RFC 8200 8.1).
    if (packet.version == 6) {
      drop(packet, LinkCounter::kRxDroppedUdpChecksum);
      return;
    }
  } else {
    const wire::Sum sum = wire::checksum_add(pseudo_sum(packet, udp->length()), udp->bytes().data(),
                                             udp->bytes().size());
    if (!wire::checksum_is_valid(sum)) {
      drop(packet, LinkCounter::kRxDroppedUdpChecksum);
      return;
    }
    packet.checksum_state = ChecksumState::kVerified;
  }
  if (udp->source_port() == 0 || udp->destination_port() == 0) {
    drop(packet, LinkCounter::kRxDroppedUdpPort);
    return;
  }
  packet.upper_length = static_cast<uint32_t>(udp->length());
  set_flow(packet, udp->source_port(), udp->destination_port());
  if (is_land(packet)) {
    drop(packet, LinkCounter::kRxDroppedLand);
    return;
  }
  packet.kind = InputKind::kUdp;
}

// Reads the flow of the packet that an ICMP error quotes. It may be cut short: only eight bytes of
// its upper layer are sure to be there (RFC 792).
bool read_quoted_flow(std::span<const uint8_t> quoted, const AddressSet& own, InputPacket& packet) {
  const bool version6 = packet.version == 6;
  const size_t header_min = version6 ? Ipv6View::kHeaderBytes : Ipv4View::kHeaderBytes;
  if (quoted.size() < header_min || quoted[0] >> 4 != packet.version) return false;
  size_t upper = header_min;
  uint8_t protocol;
  if (version6) {
    protocol = quoted[wire::ipv6_field::kNextHeader];
    // The first piece of a datagram that we sent in pieces has the ports, too.
    constexpr size_t kFragmentHeaderBytes = 8;
    if (protocol == wire::ip_protocol::kFragment && quoted.size() >= upper + kFragmentHeaderBytes &&
        (wire::load16(quoted.data() + upper + 2) & 0xfff8) == 0) {
      protocol = quoted[upper];
      upper += kFragmentHeaderBytes;
    }
    packet.flow_source = quoted.data() + wire::ipv6_field::kSource;
    packet.flow_destination = quoted.data() + wire::ipv6_field::kDestination;
  } else {
    protocol = quoted[wire::ipv4_field::kProtocol];
    upper = static_cast<size_t>(quoted[0] & 0x0f) * 4;
    if (upper < header_min) return false;
    // Of later pieces the ports are out of sight.
    const uint16_t fragment = wire::load16(quoted.data() + wire::ipv4_field::kFragment);
    if ((fragment & Ipv4View::kFragmentOffsetMask) != 0) return false;
    packet.flow_source = quoted.data() + wire::ipv4_field::kSource;
    packet.flow_destination = quoted.data() + wire::ipv4_field::kDestination;
  }
  if (quoted.size() < upper + 8 || !own.contains(packet.version, packet.flow_source)) return false;
  packet.flow_protocol = protocol;
  const uint8_t* at = quoted.data() + upper;
  // TCP's ports lie where UDP's do.
  if (protocol == wire::ip_protocol::kUdp || protocol == wire::ip_protocol::kTcp) {
    packet.flow_source_port = wire::load16(at + wire::udp_field::kSourcePort);
    packet.flow_destination_port = wire::load16(at + wire::udp_field::kDestinationPort);
    return true;
  }
  const uint8_t icmp = version6 ? wire::ip_protocol::kIcmpv6 : wire::ip_protocol::kIcmp;
  const uint8_t request =
      version6 ? wire::icmpv6_type::kEchoRequest : wire::icmp_type::kEchoRequest;
  const uint8_t reply = version6 ? wire::icmpv6_type::kEchoReply : wire::icmp_type::kEchoReply;
  packet.quotes_echo_reply = protocol == icmp && at[wire::icmp_field::kType] == reply;
  if (protocol != icmp || at[wire::icmp_field::kType] != request) return false;
  packet.flow_source_port = wire::load16(at + wire::icmp_field::kIdentifier);
  packet.flow_destination_port = packet.flow_source_port;
  return true;
}

// Routers ask from next door: with a hop limit of 1, over IPv6 from a link-local address.
void check_igmp(std::span<const uint8_t> payload, InputPacket& packet) {
  if (payload.size() < 8 || packet.hop_limit != 1 ||
      payload[wire::igmp_field::kType] != wire::igmp_type::kQuery) {
    drop(packet, LinkCounter::kRxDroppedGroup);
    return;
  }
  if (!wire::checksum_is_valid(wire::checksum_add(0, payload.data(), payload.size()))) {
    drop(packet, LinkCounter::kRxDroppedIcmpChecksum);
    return;
  }
  packet.upper_length = static_cast<uint32_t>(payload.size());
  packet.kind = InputKind::kGroupQuery;
}

void check_icmp(std::span<const uint8_t> payload, const AddressSet& own, InputPacket& packet) {
  const bool version6 = packet.version == 6;
  const auto icmp = wire::IcmpView::parse(payload);
  if (!icmp) {
    drop(packet, LinkCounter::kRxDroppedIcmpLength);
    return;
  }
  const wire::Sum pseudo = version6 ? pseudo_sum(packet, payload.size()) : 0;
  if (!wire::checksum_is_valid(wire::checksum_add(pseudo, payload.data(), payload.size()))) {
    drop(packet, LinkCounter::kRxDroppedIcmpChecksum);
    return;
  }
  packet.checksum_state = ChecksumState::kVerified;
  packet.upper_length = static_cast<uint32_t>(payload.size());
  packet.icmp_type_code = static_cast<uint32_t>(icmp->type()) << 8 | icmp->code();
  const bool is_query = version6 && icmp->type() == wire::mld_type::kQuery;
  if (packet.to_group || is_query) {
    // Nothing else of ICMP that went to a group is answered, or believed.
    const bool next_door =
        packet.hop_limit == 1 && packet.source[0] == 0xfe && (packet.source[1] & 0xc0) == 0x80;
    if (is_query && next_door) {
      packet.kind = InputKind::kGroupQuery;
    } else {
      drop(packet, is_query ? LinkCounter::kRxDroppedIcmpType : LinkCounter::kRxDroppedGroup);
    }
    return;
  }
  if (icmp->is_echo_request(version6)) {
    set_flow(packet, icmp->identifier(), icmp->identifier());
    packet.kind = InputKind::kEchoRequest;
  } else if (icmp->is_echo_reply(version6)) {
    set_flow(packet, icmp->identifier(), icmp->identifier());
    packet.kind = InputKind::kEchoReply;
  } else if (icmp->is_error(version6)) {
    if (!read_quoted_flow(icmp->body(), own, packet)) {
      drop(packet, LinkCounter::kRxDroppedIcmpQuote);
      return;
    }
    packet.kind = InputKind::kIcmpError;
  } else {
    drop(packet, LinkCounter::kRxDroppedIcmpType);
  }
}

}  // namespace

InputPacket check_input(std::span<const uint8_t> bytes, const AddressSet& own,
                        const Offload& offload, bool looped, const GroupView* groups) {
  InputPacket packet;
  const uint8_t version = bytes.empty() ? 0 : bytes[0] >> 4;
  bool accepted = false;
  if (version == 4) {
    accepted = check_ipv4(bytes, own, groups, packet);
  } else if (version == 6) {
    accepted = check_ipv6(bytes, own, groups, packet);
  }
  if (!accepted) return packet;
  if (!looped && own.contains(version, packet.source)) {
    drop(packet, same_address(packet.version, packet.source, packet.destination)
                     ? LinkCounter::kRxDroppedLand
                     : LinkCounter::kRxDroppedSpoofed);
    return packet;
  }
  if (packet.kind == InputKind::kFragment) return packet;
  const auto payload = bytes.subspan(packet.upper_offset, packet.length - packet.upper_offset);
  const uint8_t icmp = version == 6 ? wire::ip_protocol::kIcmpv6 : wire::ip_protocol::kIcmp;
  if (packet.protocol == wire::ip_protocol::kUdp) {
    check_udp(payload, offload, packet);
  } else if (version == 4 && packet.to_group && packet.protocol == wire::ip_protocol::kIgmp) {
    check_igmp(payload, packet);
  } else if (packet.to_group && packet.protocol != icmp) {
    drop(packet, LinkCounter::kRxDroppedGroup);
  } else if (packet.protocol == wire::ip_protocol::kTcp) {
    check_tcp(payload, offload, packet);
  } else if (packet.protocol == icmp) {
    check_icmp(payload, own, packet);
  } else {
    drop(packet, LinkCounter::kRxDroppedProtocol);
  }
  return packet;
}

}  // namespace apo
