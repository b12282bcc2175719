#include "capture/packet_repairs.h"

#include "wire/byte_order.h"
#include "wire/checksum.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace apo {
namespace {

using namespace wire;

constexpr size_t kUdpLengthOffset = 4;
constexpr size_t kUdpChecksumOffset = 6;
constexpr size_t kUdpHeaderBytes = 8;
constexpr size_t kTcpChecksumOffset = 16;
constexpr size_t kTcpHeaderBytes = 20;

// Where the upper layer lies, and between which addresses.
struct Upper {
  uint8_t protocol = 0;
  size_t offset = 0;
  size_t bytes = 0;
  const uint8_t* addresses = nullptr;
  size_t address_bytes = 0;
};

// A packet beyond 65,535 bytes has no length that fits, and one with length 0 stands for that
// ("presumed to be because of segmentation offload"): it is left alone.
bool find_upper4(std::span<const uint8_t> packet, PacketRepairs& repairs, Upper& upper) {
  if (packet.size() < Ipv4View::kHeaderBytes) return false;
  const size_t header_bytes = static_cast<size_t>(packet[0] & 0x0f) * 4;
  size_t total = load16(&packet[ipv4_field::kTotalLength]);
  if (total == 0 && packet.size() <= UINT16_MAX) {
    total = packet.size();
    repairs.add(ipv4_field::kTotalLength, static_cast<uint16_t>(total));
    const uint16_t checksum = load16(&packet[ipv4_field::kChecksum]);
    repairs.add(ipv4_field::kChecksum,
                checksum_update16(checksum, 0, static_cast<uint16_t>(total)));
  }
  if (header_bytes < Ipv4View::kHeaderBytes || total < header_bytes || total > packet.size()) {
    return false;
  }
  upper.protocol = packet[ipv4_field::kProtocol];
  upper.offset = header_bytes;
  upper.bytes = total - header_bytes;
  upper.addresses = &packet[ipv4_field::kSource];
  upper.address_bytes = Ipv4View::kAddressBytes;
  return true;
}

bool find_upper6(std::span<const uint8_t> packet, PacketRepairs& repairs, Upper& upper) {
  if (packet.size() < Ipv6View::kHeaderBytes) return false;
  size_t payload = load16(&packet[ipv6_field::kPayloadLength]);
  const size_t behind_header = packet.size() - Ipv6View::kHeaderBytes;
  if (payload == 0 && behind_header > 0 && behind_header <= UINT16_MAX &&
      packet[ipv6_field::kNextHeader] != ip_protocol::kHopByHop) {
    payload = behind_header;
    repairs.add(ipv6_field::kPayloadLength, static_cast<uint16_t>(payload));
    upper.protocol = packet[ipv6_field::kNextHeader];
    upper.offset = Ipv6View::kHeaderBytes;
  } else {
    const auto ip = Ipv6View::parse(packet);
    if (!ip) return false;
    const Ipv6UpperLayer found = ipv6_upper_layer(*ip);
    if (found.state != Ipv6UpperLayer::State::kFound) return false;
    upper.protocol = found.protocol;
    upper.offset = found.offset;
  }
  upper.bytes = Ipv6View::kHeaderBytes + payload - upper.offset;
  upper.addresses = &packet[ipv6_field::kSource];
  upper.address_bytes = Ipv6View::kAddressBytes;
  return true;
}

}  // namespace

PacketRepairs packet_repairs(std::span<const uint8_t> packet, const Offload& offload) {
  PacketRepairs repairs;
  const bool super = offload.gso_kind != GsoKind::kNone;
  if (offload.checksum_state != ChecksumState::kPartial && !super) return repairs;
  if (packet.empty()) return repairs;
  Upper upper;
  const uint8_t version = packet[0] >> 4;
  const bool found = version == 4   ? find_upper4(packet, repairs, upper)
                     : version == 6 ? find_upper6(packet, repairs, upper)
                                    : false;
  if (!found) return repairs;
  const bool udp = upper.protocol == ip_protocol::kUdp;
  if (!udp && upper.protocol != ip_protocol::kTcp) return repairs;
  if (upper.bytes < (udp ? kUdpHeaderBytes : kTcpHeaderBytes)) return repairs;
  const uint8_t* at = packet.data() + upper.offset;
  const size_t field = udp ? kUdpChecksumOffset : kTcpChecksumOffset;
  Sum sum = checksum_pseudo_header(upper.addresses, upper.address_bytes,
                                   static_cast<uint32_t>(upper.bytes), upper.protocol);
  sum = checksum_add(sum, at, upper.bytes);
  // Taking a word out of a one's complement sum is adding its complement.
  sum = checksum_add16(sum, static_cast<uint16_t>(~load16(at + field)));
  if (udp && super) {
    const uint16_t length = load16(at + kUdpLengthOffset);
    const auto whole = static_cast<uint16_t>(upper.bytes);
    if (length != whole) {
      repairs.add(upper.offset + kUdpLengthOffset, whole);
      sum = checksum_add16(sum, static_cast<uint16_t>(~length));
      sum = checksum_add16(sum, whole);
    }
  }
  uint16_t checksum = checksum_finish(sum);
  if (checksum == 0 && udp) checksum = 0xffff;  // 0 says "none" (RFC 768)
  repairs.add(upper.offset + field, checksum);
  return repairs;
}

}  // namespace apo
