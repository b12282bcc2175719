#include "ip/icmp_output.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "ip/ip_output.h"
#include "wire/checksum.h"
#include "wire/icmp.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/tcp.h"

namespace apo {
namespace {

using wire::Ipv4View;
using wire::Ipv6View;

constexpr size_t kIpv4ErrorMaxBytes = 576;
constexpr size_t kIpv6ErrorMaxBytes = 1280;

// Type and code in each family.
struct ErrorNumbers {
  uint8_t type4, code4, type6, code6;
};
constexpr ErrorNumbers kErrorNumbers[] = {
    {3, 0, 1, 0},   // kNoRoute
    {3, 1, 1, 3},   // kHostUnreachable
    {3, 2, 4, 1},   // kProtocolUnreachable
    {3, 3, 1, 4},   // kPortUnreachable
    {3, 13, 1, 1},  // kProhibited
    {3, 4, 2, 0},   // kPacketTooBig
    {11, 0, 3, 0},  // kHopLimitExceeded
    {11, 1, 3, 1},  // kReassemblyTimeExceeded
    {12, 0, 4, 0},  // kBadHeaderField
    {12, 0, 4, 2},  // kBadOption
    {12, 2, 4, 3},  // kIncompleteHeaderChain
};

// From the packet's destination to its source, right before the upper layer.
void write_swapped_addresses(const InputPacket& input, uint8_t* upper) {
  const size_t address_bytes = input.address_bytes();
  std::memcpy(upper - 2 * address_bytes, input.destination, address_bytes);
  std::memcpy(upper - address_bytes, input.source, address_bytes);
}

// An address that one host can have: not of a group, nor nobody's.
bool is_unicast4(const uint8_t* address) {
  return address[0] != 0 && address[0] != 127 && address[0] < 224;
}
bool is_unicast6(const uint8_t* address) {
  static constexpr uint8_t kUnspecified[16] = {};
  return address[0] != 0xff && std::memcmp(address, kUnspecified, 16) != 0;
}
bool is_unicast(uint8_t version, const uint8_t* address) {
  return version == 4 ? is_unicast4(address) : is_unicast6(address);
}

// What is needed of a packet in order to complain about it.
struct Offender {
  uint8_t version = 4;
  std::span<const uint8_t> bytes;
  const uint8_t* source = nullptr;
  const uint8_t* destination = nullptr;
};

bool is_icmp_error4(const Ipv4View& ip) {
  if (ip.protocol() != wire::ip_protocol::kIcmp) return false;
  if (ip.payload().empty()) return true;
  // Errors, redirects and quenches alike: nothing but queries is answered (RFC 1122 3.2.2).
  const uint8_t type = ip.payload()[wire::icmp_field::kType];
  return (type >= wire::icmp_type::kUnreachable && type <= 5) ||
         type == wire::icmp_type::kTimeExceeded || type == wire::icmp_type::kParameterProblem;
}

std::optional<Offender> read_offender4(std::span<const uint8_t> packet) {
  const auto ip = Ipv4View::parse(packet);
  if (!ip || (ip->fragment_word() & Ipv4View::kFragmentOffsetMask) != 0) return std::nullopt;
  if (is_icmp_error4(*ip)) return std::nullopt;
  return Offender{4, packet.first(ip->total_length()), ip->source(), ip->destination()};
}

// Walks the headers as far as they go; a chain that is broken has no ICMP error in it to speak of.
bool is_icmp_error6(const Ipv6View& ip) {
  constexpr uint8_t kRedirect = 137;
  std::span<const uint8_t> rest = ip.payload();
  uint8_t next = ip.next_header();
  for (int headers = 0; headers <= wire::kIpv6ExtensionHeadersMax; ++headers) {
    if (next == wire::ip_protocol::kIcmpv6) {
      return rest.empty() || rest[0] < 128 || rest[0] == kRedirect;
    }
    const bool fragment = next == wire::ip_protocol::kFragment;
    if (next != wire::ip_protocol::kHopByHop && next != wire::ip_protocol::kRouting &&
        next != wire::ip_protocol::kDestinationOptions && !fragment) {
      return false;
    }
    if (rest.size() < 8) return false;
    // In a later fragment the type is out of sight, but what comes next is not.
    if (fragment && (wire::load16(rest.data() + 2) & 0xfff8) != 0) {
      return rest[0] == wire::ip_protocol::kIcmpv6;
    }
    const size_t header_bytes = fragment ? 8 : 8 + 8 * static_cast<size_t>(rest[1]);
    if (rest.size() < header_bytes) return false;
    next = rest[0];
    rest = rest.subspan(header_bytes);
  }
  return false;
}

std::optional<Offender> read_offender6(std::span<const uint8_t> packet) {
  const auto ip = Ipv6View::parse(packet);
  if (!ip || is_icmp_error6(*ip)) return std::nullopt;
  return Offender{6, ip->bytes(), ip->source(), ip->destination()};
}

// Writes the header of a reply and the addresses into it; the upper layer stands behind it.
void finish_reply(uint8_t* out, const IpHeader& header) {
  write_ip_header(out, header);
  write_upper_checksum(out, header);
}

void answer_echo(const InputPacket& input, uint8_t* ip) {
  IpHeader header;
  header.version = input.version;
  header.protocol = input.protocol;
  header.traffic_class = input.traffic_class;
  header.upper_bytes = input.upper_length;
  uint8_t* upper = ip + ip_header_bytes(input.version);
  write_ip_header(ip, header);
  const bool version6 = input.version == 6;
  const uint8_t type = version6 ? wire::icmpv6_type::kEchoReply : wire::icmp_type::kEchoReply;
  // Only the type changes (the pseudo header's sum does not care for the order of the addresses).
  const uint16_t from = wire::load16(upper);
  upper[wire::icmp_field::kType] = type;
  const uint16_t checksum = wire::load16(upper + wire::icmp_field::kChecksum);
  wire::store16(upper + wire::icmp_field::kChecksum,
                wire::checksum_update16(checksum, from, wire::load16(upper)));
}

}  // namespace

size_t build_echo_reply(const InputPacket& input, std::span<const uint8_t> request,
                        std::span<uint8_t> out) {
  const size_t header_bytes = ip_header_bytes(input.version);
  const size_t length = header_bytes + input.upper_length;
  if (length > out.size()) return 0;
  uint8_t* upper = out.data() + header_bytes;
  std::memcpy(upper, request.data() + input.upper_offset, input.upper_length);
  write_swapped_addresses(input, upper);
  answer_echo(input, out.data());
  return length;
}

std::span<uint8_t> build_echo_reply_in_place(const InputPacket& input, std::span<uint8_t> request) {
  const size_t address_bytes = input.address_bytes();
  const size_t header_bytes = ip_header_bytes(input.version);
  uint8_t addresses[32];
  std::memcpy(addresses, input.destination, address_bytes);
  std::memcpy(addresses + address_bytes, input.source, address_bytes);
  uint8_t* upper = request.data() + input.upper_offset;
  std::memcpy(upper - 2 * address_bytes, addresses, 2 * address_bytes);
  answer_echo(input, upper - header_bytes);
  return {upper - header_bytes, header_bytes + input.upper_length};
}

size_t build_icmp_error(const IcmpError& error, std::span<const uint8_t> offender,
                        std::span<uint8_t> out, const uint8_t* from) {
  if (offender.empty()) return 0;
  const auto about = offender[0] >> 4 == 4 ? read_offender4(offender) : read_offender6(offender);
  if (!about || !is_unicast(about->version, about->source)) return 0;
  const bool version6 = about->version == 6;
  if (!is_unicast(about->version, about->destination)) {
    const bool allowed =
        error.kind == IcmpErrorKind::kPacketTooBig || error.kind == IcmpErrorKind::kBadOption;
    if (!version6 || !allowed || from == nullptr) return 0;
  }
  const size_t header_bytes = ip_header_bytes(about->version);
  const size_t address_bytes = version6 ? 16 : 4;
  const size_t overhead = header_bytes + wire::IcmpView::kHeaderBytes;
  const size_t max = std::min(out.size(), version6 ? kIpv6ErrorMaxBytes : kIpv4ErrorMaxBytes);
  const size_t quoted_min = version6 ? Ipv6View::kHeaderBytes : (about->bytes[0] & 15u) * 4 + 8;
  if (max < overhead + std::min(about->bytes.size(), quoted_min)) return 0;
  const size_t quoted = std::min(about->bytes.size(), max - overhead);

  IpHeader header;
  header.version = about->version;
  header.protocol = version6 ? wire::ip_protocol::kIcmpv6 : wire::ip_protocol::kIcmp;
  header.upper_bytes = wire::IcmpView::kHeaderBytes + quoted;
  uint8_t* upper = out.data() + header_bytes;
  const ErrorNumbers& numbers = kErrorNumbers[static_cast<size_t>(error.kind)];
  upper[wire::icmp_field::kType] = version6 ? numbers.type6 : numbers.type4;
  upper[wire::icmp_field::kCode] = version6 ? numbers.code6 : numbers.code4;
  uint32_t word = 0;
  if (version6) {
    word = error.value;
  } else if (error.kind == IcmpErrorKind::kPacketTooBig) {
    word = std::min<uint32_t>(error.value, 65'535);  // RFC 1191 4
  } else if (numbers.type4 == wire::icmp_type::kParameterProblem) {
    word = error.value << 24;
  }
  wire::store32(upper + 4, word);
  std::memcpy(upper + wire::icmp_field::kQuoted, about->bytes.data(), quoted);
  std::memcpy(upper - 2 * address_bytes, from == nullptr ? about->destination : from,
              address_bytes);
  std::memcpy(upper - address_bytes, about->source, address_bytes);
  finish_reply(out.data(), header);
  return overhead + quoted;
}

size_t build_port_unreachable(const InputPacket& input, std::span<const uint8_t> offender,
                              std::span<uint8_t> out) {
  return build_icmp_error({IcmpErrorKind::kPortUnreachable, 0}, offender.first(input.length), out);
}

size_t build_tcp_reset(const InputPacket& input, std::span<const uint8_t> packet,
                       std::span<uint8_t> out) {
  using namespace wire;
  const auto tcp =
      TcpView::parse(packet.subspan(input.upper_offset, input.length - input.upper_offset));
  if (!tcp || tcp->has(tcp_flag::kRst)) return 0;
  if (!is_unicast(input.version, input.source) || !is_unicast(input.version, input.destination)) {
    return 0;
  }
  const size_t header_bytes = ip_header_bytes(input.version);
  const size_t length = header_bytes + TcpView::kHeaderBytes;
  if (out.size() < length) return 0;
  IpHeader header;
  header.version = input.version;
  header.protocol = ip_protocol::kTcp;
  header.upper_bytes = TcpView::kHeaderBytes;
  uint8_t* upper = out.data() + header_bytes;
  std::memset(upper, 0, TcpView::kHeaderBytes);
  store16(upper + tcp_field::kSourcePort, tcp->destination_port());
  store16(upper + tcp_field::kDestinationPort, tcp->source_port());
  upper[tcp_field::kDataOffset] = TcpView::kHeaderBytes / 4 << 4;
  if (tcp->has(tcp_flag::kAck)) {
    store32(upper + tcp_field::kSequence, tcp->acknowledgment());
    upper[tcp_field::kFlags] = tcp_flag::kRst;
  } else {
    const uint32_t occupied = static_cast<uint32_t>(tcp->payload().size()) +
                              (tcp->has(tcp_flag::kSyn) ? 1 : 0) +
                              (tcp->has(tcp_flag::kFin) ? 1 : 0);
    store32(upper + tcp_field::kAcknowledgment, tcp->sequence() + occupied);
    upper[tcp_field::kFlags] = tcp_flag::kRst | tcp_flag::kAck;
  }
  write_swapped_addresses(input, upper);
  write_ip_header(out.data(), header);
  const Sum sum = checksum_pseudo_header(upper - 2 * input.address_bytes(), input.address_bytes(),
                                         TcpView::kHeaderBytes, ip_protocol::kTcp);
  store16(upper + tcp_field::kChecksum,
          checksum_finish(checksum_add(sum, upper, TcpView::kHeaderBytes)));
  return length;
}

bool ErrorBudget::take(uint8_t version, const uint8_t* destination, uint64_t now_us) {
  const IpAddress address = IpAddress::from_bytes(version, destination);
  HalfSipHash hasher(key_);
  for (size_t i = 0; i < address.size(); i += 4) hasher.add(wire::load32(destination + i));
  const uint32_t hash = hasher.finish();
  auto at = buckets_.find(address, hash);
  if (at == buckets_.kNone) {
    if (buckets_.full()) buckets_.erase(buckets_.oldest());
    at = buckets_.insert(address, hash);
    draw(buckets_.value(at), hash, now_us);
  }
  Bucket& bucket = buckets_.value(at);
  const uint64_t refill = (now_us - bucket.refilled_us) / bucket.interval_us;
  if (refill >= bucket.burst - bucket.tokens && bucket.tokens < bucket.burst) {
    draw(bucket, hash, now_us);
  } else if (bucket.tokens < bucket.burst) {
    bucket.tokens += static_cast<uint32_t>(refill);
    bucket.refilled_us += refill * bucket.interval_us;
  } else {
    bucket.refilled_us = now_us;
  }
  if (bucket.tokens == 0) return false;
  --bucket.tokens;
  return true;
}

// A full bucket of another size.
void ErrorBudget::draw(Bucket& bucket, uint32_t address_hash, uint64_t now_us) {
  HalfSipHash hasher(key_);
  hasher.add(address_hash);
  hasher.add(draws_++);
  const uint32_t random = hasher.finish();
  bucket.burst = kBurstMin + random % (kBurstMax - kBurstMin + 1);
  bucket.interval_us = kIntervalMinUs + (random >> 16) % (kIntervalMaxUs - kIntervalMinUs + 1);
  bucket.tokens = bucket.burst;
  bucket.refilled_us = now_us;
}

}  // namespace apo
