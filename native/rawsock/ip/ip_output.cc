#include "ip/ip_output.h"

#include "wire/checksum.h"
#include "wire/icmp.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/udp.h"

namespace apo {
namespace {

OutputPacket refuse(LinkCounter reason) {
  OutputPacket packet;
  packet.drop_reason = reason;
  return packet;
}

size_t checksum_offset(uint8_t protocol) {
  return protocol == wire::ip_protocol::kUdp ? wire::udp_field::kChecksum
                                             : wire::icmp_field::kChecksum;
}

// What a worker may send: UDP, and echo requests. Errors and replies are the native thread's own.
bool upper_is_acceptable(const PacketDescriptor& descriptor, const uint8_t* upper) {
  if (descriptor.protocol == wire::ip_protocol::kUdp) return true;
  const bool version6 = descriptor.version == 6;
  const uint8_t icmp = version6 ? wire::ip_protocol::kIcmpv6 : wire::ip_protocol::kIcmp;
  const uint8_t request =
      version6 ? wire::icmpv6_type::kEchoRequest : wire::icmp_type::kEchoRequest;
  return descriptor.protocol == icmp && upper[wire::icmp_field::kType] == request &&
         upper[wire::icmp_field::kCode] == 0;
}

}  // namespace

void write_ip_header(uint8_t* at, const IpHeader& header) {
  using namespace wire;
  if (header.version == 4) {
    at[ipv4_field::kVersionIhl] = 0x45;
    at[ipv4_field::kTrafficClass] = header.traffic_class;
    store16(at + ipv4_field::kTotalLength,
            static_cast<uint32_t>(Ipv4View::kHeaderBytes + header.upper_bytes));
    store16(at + ipv4_field::kIdentification, 0);
    store16(at + ipv4_field::kFragment, Ipv4View::kDontFragment);
    at[ipv4_field::kTtl] = header.hop_limit;
    at[ipv4_field::kProtocol] = header.protocol;
    store16(at + ipv4_field::kChecksum, 0);
    const Sum sum = checksum_add(0, at, Ipv4View::kHeaderBytes);
    store16(at + ipv4_field::kChecksum, checksum_finish(sum));
    return;
  }
  store32(at, 6u << 28 | static_cast<uint32_t>(header.traffic_class) << 20 |
                  (header.flow_label & 0xfffff));
  store16(at + ipv6_field::kPayloadLength, static_cast<uint32_t>(header.upper_bytes));
  at[ipv6_field::kNextHeader] = header.protocol;
  at[ipv6_field::kHopLimit] = header.hop_limit;
}

void write_upper_checksum(uint8_t* ip, const IpHeader& header) {
  using namespace wire;
  const size_t header_bytes = ip_header_bytes(header.version);
  uint8_t* upper = ip + header_bytes;
  uint8_t* field = upper + checksum_offset(header.protocol);
  store16(field, 0);
  Sum sum = 0;
  if (header.protocol != ip_protocol::kIcmp) {
    const size_t address_bytes = header.version == 4 ? 4 : 16;
    sum = checksum_pseudo_header(ip + header_bytes - 2 * address_bytes, address_bytes,
                                 static_cast<uint32_t>(header.upper_bytes), header.protocol);
  }
  uint16_t checksum = checksum_finish(checksum_add(sum, upper, header.upper_bytes));
  // A UDP checksum that comes out as 0 is sent as all ones, since 0 says "none" (RFC 768).
  if (checksum == 0 && header.protocol == ip_protocol::kUdp) checksum = 0xffff;
  store16(field, checksum);
}

OutputPacket finish_output(const PacketDescriptor& descriptor, std::span<uint8_t> frame,
                           const AddressSet& own, size_t mtu) {
  if (descriptor.version != 4 && descriptor.version != 6) {
    return refuse(LinkCounter::kTxDroppedDescriptor);
  }
  const size_t header_bytes = ip_header_bytes(descriptor.version);
  const size_t offset = descriptor.packet_offset;
  const size_t length = descriptor.length;
  if (descriptor.upper_offset != offset + header_bytes || length < header_bytes + 8 ||
      offset > frame.size() || length > frame.size() - offset) {
    return refuse(LinkCounter::kTxDroppedDescriptor);
  }
  if (length > mtu) return refuse(LinkCounter::kTxDroppedTooBig);
  uint8_t* ip = frame.data() + offset;
  uint8_t* upper = ip + header_bytes;
  if (!upper_is_acceptable(descriptor, upper)) return refuse(LinkCounter::kTxDroppedDescriptor);
  const size_t address_bytes = descriptor.version == 4 ? 4 : 16;
  if (!own.contains(descriptor.version, upper - 2 * address_bytes)) {
    return refuse(LinkCounter::kTxDroppedSource);
  }
  IpHeader header;
  header.version = descriptor.version;
  header.protocol = descriptor.protocol;
  header.hop_limit = descriptor.hop_limit == 0 ? kDefaultHopLimit : descriptor.hop_limit;
  header.traffic_class = descriptor.traffic_class;
  header.flow_label = descriptor.label;
  header.upper_bytes = length - header_bytes;
  write_ip_header(ip, header);
  if (descriptor.protocol == wire::ip_protocol::kUdp) {
    wire::store16(upper + wire::udp_field::kLength, static_cast<uint32_t>(header.upper_bytes));
  }
  write_upper_checksum(ip, header);
  return {true, LinkCounter::kTxPackets, {ip, length}};
}

}  // namespace apo
