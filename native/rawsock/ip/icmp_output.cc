#include "ip/icmp_output.h"

#include <algorithm>
#include <cstring>

#include "ip/ip_output.h"
#include "wire/checksum.h"
#include "wire/icmp.h"
#include "wire/ipv6.h"

namespace apo {
namespace {

constexpr size_t kIpv4ErrorMaxBytes = 576;
constexpr size_t kIpv6ErrorMaxBytes = 1280;

// From the packet's destination to its source, right before the upper layer.
void write_swapped_addresses(const InputPacket& input, uint8_t* upper) {
  const size_t address_bytes = input.address_bytes();
  std::memcpy(upper - 2 * address_bytes, input.destination, address_bytes);
  std::memcpy(upper - address_bytes, input.source, address_bytes);
}

}  // namespace

size_t build_echo_reply(const InputPacket& input, std::span<const uint8_t> request,
                        std::span<uint8_t> out) {
  IpHeader header;
  header.version = input.version;
  header.protocol = input.protocol;
  header.traffic_class = input.traffic_class;
  header.upper_bytes = input.upper_length;
  const size_t header_bytes = ip_header_bytes(input.version);
  const size_t length = header_bytes + header.upper_bytes;
  if (length > out.size()) return 0;
  uint8_t* upper = out.data() + header_bytes;
  std::memcpy(upper, request.data() + input.upper_offset, input.upper_length);
  write_swapped_addresses(input, upper);
  write_ip_header(out.data(), header);
  const bool version6 = input.version == 6;
  const uint8_t type = version6 ? wire::icmpv6_type::kEchoReply : wire::icmp_type::kEchoReply;
  // Only the type changes (the pseudo header's sum does not care for the order of the addresses).
  const uint16_t from = wire::load16(upper);
  upper[wire::icmp_field::kType] = type;
  const uint16_t checksum = wire::load16(upper + wire::icmp_field::kChecksum);
  wire::store16(upper + wire::icmp_field::kChecksum,
                wire::checksum_update16(checksum, from, wire::load16(upper)));
  return length;
}

size_t build_port_unreachable(const InputPacket& input, std::span<const uint8_t> offender,
                              std::span<uint8_t> out) {
  const bool version6 = input.version == 6;
  const size_t header_bytes = ip_header_bytes(input.version);
  const size_t overhead = header_bytes + wire::IcmpView::kHeaderBytes;
  const size_t max = std::min(out.size(), version6 ? kIpv6ErrorMaxBytes : kIpv4ErrorMaxBytes);
  if (max < overhead + input.upper_offset + 8) return 0;
  const size_t quoted = std::min<size_t>(input.length, max - overhead);
  IpHeader header;
  header.version = input.version;
  header.protocol = version6 ? wire::ip_protocol::kIcmpv6 : wire::ip_protocol::kIcmp;
  header.upper_bytes = wire::IcmpView::kHeaderBytes + quoted;
  uint8_t* upper = out.data() + header_bytes;
  std::memset(upper, 0, wire::IcmpView::kHeaderBytes);
  upper[wire::icmp_field::kType] =
      version6 ? wire::icmpv6_type::kUnreachable : wire::icmp_type::kUnreachable;
  upper[wire::icmp_field::kCode] =
      version6 ? wire::icmpv6_type::kCodePortUnreachable : wire::icmp_type::kCodePortUnreachable;
  std::memcpy(upper + wire::icmp_field::kQuoted, offender.data(), quoted);
  write_swapped_addresses(input, upper);
  write_ip_header(out.data(), header);
  write_upper_checksum(out.data(), header);
  return overhead + quoted;
}

bool ErrorBudget::take(uint32_t destination_hash, uint64_t now_us) {
  Bucket& bucket = buckets_[destination_hash % buckets_.size()];
  const uint64_t elapsed = now_us - bucket.refilled_us;
  const uint64_t refill = elapsed / kIntervalUs;
  if (refill >= kBurst) {
    bucket.tokens = kBurst;
    bucket.refilled_us = now_us;
  } else {
    bucket.tokens = std::min<uint32_t>(kBurst, bucket.tokens + static_cast<uint32_t>(refill));
    bucket.refilled_us += refill * kIntervalUs;
  }
  if (bucket.tokens == 0) return false;
  --bucket.tokens;
  return true;
}

}  // namespace apo
