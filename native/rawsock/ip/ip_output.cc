#include "ip/ip_output.h"

#include "wire/checksum.h"
#include "wire/icmp.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/tcp.h"
#include "wire/udp.h"

namespace apo {
namespace {

OutputPacket refuse(LinkCounter reason) {
  OutputPacket packet;
  packet.drop_reason = reason;
  return packet;
}

size_t checksum_offset(uint8_t protocol) {
  if (protocol == wire::ip_protocol::kTcp) return wire::tcp_field::kChecksum;
  return protocol == wire::ip_protocol::kUdp ? wire::udp_field::kChecksum
                                             : wire::icmp_field::kChecksum;
}

wire::Sum pseudo_sum(const uint8_t* ip, const IpHeader& header) {
  const size_t address_bytes = header.version == 4 ? 4 : 16;
  const size_t header_bytes = ip_header_bytes(header.version);
  return wire::checksum_pseudo_header(ip + header_bytes - 2 * address_bytes, address_bytes,
                                      static_cast<uint32_t>(header.upper_bytes), header.protocol);
}

// What a worker may send: UDP, and echo requests. Errors and replies are the native thread's own.
// Does what stands behind the IP header look like what the descriptor says?
bool upper_is_acceptable(const PacketDescriptor& descriptor, std::span<const uint8_t> upper) {
  if (descriptor.protocol == wire::ip_protocol::kUdp) {
    return upper.size() >= wire::UdpView::kHeaderBytes;
  }
  if (descriptor.protocol == wire::ip_protocol::kTcp) {
    return wire::TcpView::parse(upper).has_value();
  }
  const bool version6 = descriptor.version == 6;
  const uint8_t icmp = version6 ? wire::ip_protocol::kIcmpv6 : wire::ip_protocol::kIcmp;
  const uint8_t request =
      version6 ? wire::icmpv6_type::kEchoRequest : wire::icmp_type::kEchoRequest;
  return descriptor.protocol == icmp && upper.size() >= wire::IcmpView::kHeaderBytes &&
         upper[wire::icmp_field::kType] == request && upper[wire::icmp_field::kCode] == 0;
}

// A super-packet's kind must be its protocol's, and its segments not empty.
bool gso_is_acceptable(const PacketDescriptor& descriptor) {
  switch (descriptor.gso_kind) {
    case GsoKind::kNone:
      return true;
    case GsoKind::kUdp:
      return descriptor.protocol == wire::ip_protocol::kUdp && descriptor.gso_bytes > 0;
    case GsoKind::kTcp4:
    case GsoKind::kTcp6:
      return descriptor.protocol == wire::ip_protocol::kTcp && descriptor.gso_bytes > 0 &&
             (descriptor.gso_kind == GsoKind::kTcp4) == (descriptor.version == 4);
  }
  return false;
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
  const Sum sum = header.protocol == ip_protocol::kIcmp ? 0 : pseudo_sum(ip, header);
  uint16_t checksum = checksum_finish(checksum_add(sum, upper, header.upper_bytes));
  // A UDP checksum that comes out as 0 is sent as all ones, since 0 says "none" (RFC 768).
  if (checksum == 0 && header.protocol == ip_protocol::kUdp) checksum = 0xffff;
  store16(field, checksum);
}

void write_partial_checksum(uint8_t* ip, const IpHeader& header) {
  uint8_t* field = ip + ip_header_bytes(header.version) + checksum_offset(header.protocol);
  wire::store16(field, static_cast<uint16_t>(~wire::checksum_finish(pseudo_sum(ip, header))));
}

OutputPacket finish_output(const PacketDescriptor& descriptor, std::span<uint8_t> frame,
                           const AddressSet& own) {
  if (descriptor.version != 4 && descriptor.version != 6) {
    return refuse(LinkCounter::kTxDroppedDescriptor);
  }
  const size_t header_bytes = ip_header_bytes(descriptor.version);
  const size_t offset = descriptor.packet_offset;
  const size_t length = descriptor.length;
  const size_t length_max = descriptor.version == 4 ? 65'535 : 65'535 + header_bytes;
  if (descriptor.upper_offset != offset + header_bytes || length < header_bytes ||
      length > length_max || offset > frame.size() || length > frame.size() - offset) {
    return refuse(LinkCounter::kTxDroppedDescriptor);
  }
  uint8_t* ip = frame.data() + offset;
  uint8_t* upper = ip + header_bytes;
  if (!upper_is_acceptable(descriptor, {upper, length - header_bytes}) ||
      !gso_is_acceptable(descriptor)) {
    return refuse(LinkCounter::kTxDroppedDescriptor);
  }
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
  OutputPacket packet;
  packet.ready = true;
  packet.bytes = {ip, length};
  packet.may_fragment = descriptor.protocol != wire::ip_protocol::kTcp && !descriptor.whole;
  if (descriptor.gso_kind == GsoKind::kNone) {
    write_upper_checksum(ip, header);
  } else {
    write_partial_checksum(ip, header);
    packet.offload = {ChecksumState::kPartial, descriptor.gso_kind, descriptor.gso_bytes};
  }
  return packet;
}

}  // namespace apo
