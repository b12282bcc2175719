#include "ip/fragment_facts.h"

#include "wire/byte_order.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/tcp.h"
#include "wire/udp.h"

namespace apo {
namespace {

using wire::Ipv4View;
using wire::Ipv6View;
using State = FragmentFacts::State;

constexpr size_t kFragmentHeaderBytes = 8;
constexpr uint32_t kUnit = 8;
constexpr size_t kLengthMax = 65'535;
constexpr size_t kTcpTinyBytes = 16;  // up to and with the flags (RFC 1858 3)

bool has_bad_length(const FragmentFacts& facts) {
  return facts.data.empty() || (facts.more && facts.data.size() % kUnit != 0);
}

FragmentFacts read4(std::span<const uint8_t> packet) {
  FragmentFacts facts;
  const auto ip = Ipv4View::parse(packet);
  if (!ip || !ip->is_fragment()) return facts;
  facts.version = 4;
  facts.protocol = ip->protocol();
  facts.ecn = ip->traffic_class() & 3;
  facts.more = (ip->fragment_word() & Ipv4View::kMoreFragments) != 0;
  facts.identification = wire::load16(packet.data() + wire::ipv4_field::kIdentification);
  facts.offset = (ip->fragment_word() & Ipv4View::kFragmentOffsetMask) * kUnit;
  facts.source = ip->source();
  facts.destination = ip->destination();
  facts.packet = packet.first(ip->total_length());
  facts.data = ip->payload();
  facts.split_bytes = static_cast<uint16_t>(ip->header_bytes());
  const bool tcp = facts.protocol == wire::ip_protocol::kTcp;
  if (has_bad_length(facts)) {
    facts.state = State::kBadLength;
  } else if (ip->header_bytes() + facts.end() > kLengthMax) {
    facts.state = State::kTooLong;
  } else if (tcp &&
             (facts.offset == kUnit || (facts.offset == 0 && facts.data.size() < kTcpTinyBytes))) {
    facts.state = State::kTiny;
  } else {
    facts.state = State::kFragment;
  }
  return facts;
}

// Are all headers here, the upper layer's with them? `bytes` is what follows the fragment header.
bool has_whole_chain(uint8_t next, std::span<const uint8_t> bytes) {
  for (int headers = 0; headers <= wire::kIpv6ExtensionHeadersMax; ++headers) {
    switch (next) {
      case wire::ip_protocol::kRouting:
      case wire::ip_protocol::kDestinationOptions: {
        if (bytes.size() < 8) return false;
        const size_t header_bytes = 8 + 8 * static_cast<size_t>(bytes[1]);
        if (bytes.size() < header_bytes) return false;
        next = bytes[0];
        bytes = bytes.subspan(header_bytes);
        break;
      }
      case wire::ip_protocol::kTcp:
        return wire::TcpView::parse(bytes).has_value();
      case wire::ip_protocol::kUdp:
      case wire::ip_protocol::kIcmpv6:
        return bytes.size() >= wire::UdpView::kHeaderBytes;
      default:
        return true;  // nothing that is spoken here: the whole packet will be refused
    }
  }
  return false;
}

FragmentFacts read6(std::span<const uint8_t> packet) {
  FragmentFacts facts;
  const auto ip = Ipv6View::parse(packet);
  if (!ip) return facts;
  const std::span<const uint8_t> bytes = ip->bytes();
  size_t offset = Ipv6View::kHeaderBytes;
  size_t field = wire::ipv6_field::kNextHeader;
  for (int headers = 0; bytes[field] != wire::ip_protocol::kFragment; ++headers) {
    const uint8_t next = bytes[field];
    const bool is_extension = next == wire::ip_protocol::kHopByHop ||
                              next == wire::ip_protocol::kRouting ||
                              next == wire::ip_protocol::kDestinationOptions;
    if (!is_extension || headers == wire::kIpv6ExtensionHeadersMax) return facts;
    if (bytes.size() - offset < 8) return facts;
    field = offset;
    offset += 8 + 8 * static_cast<size_t>(bytes[offset + 1]);
    if (offset > bytes.size()) return facts;
  }
  if (bytes.size() - offset < kFragmentHeaderBytes) return facts;
  const uint8_t* header = bytes.data() + offset;
  const uint16_t word = wire::load16(header + 2);
  if ((word & 0xfff9) == 0) return facts;
  facts.version = 6;
  facts.ecn = ip->traffic_class() & 3;
  facts.more = (word & 1) != 0;
  facts.identification = wire::load32(header + 4);
  facts.offset = word & 0xfff8;
  facts.source = ip->source();
  facts.destination = ip->destination();
  facts.packet = bytes;
  facts.data = bytes.subspan(offset + kFragmentHeaderBytes);
  facts.split_bytes = static_cast<uint16_t>(offset);
  facts.next_header_field = static_cast<uint16_t>(field);
  facts.next_header = header[0];
  if (has_bad_length(facts)) {
    facts.state = State::kBadLength;
  } else if (offset - Ipv6View::kHeaderBytes + facts.end() > kLengthMax) {
    facts.state = State::kTooLong;
  } else if (facts.offset == 0 && !has_whole_chain(facts.next_header, facts.data)) {
    facts.state = State::kIncompleteChain;
  } else {
    facts.state = State::kFragment;
  }
  return facts;
}

}  // namespace

FragmentFacts read_fragment(std::span<const uint8_t> packet) {
  if (packet.empty()) return {};
  return packet[0] >> 4 == 4 ? read4(packet) : read6(packet);
}

}  // namespace apo
