#include "ip/segmentation.h"

#include <algorithm>
#include <cstring>

#include "wire/byte_order.h"
#include "wire/checksum.h"
#include "wire/icmp.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/tcp.h"
#include "wire/udp.h"

namespace apo {
namespace {

using wire::Ipv4View;
using wire::Ipv6View;

// A whole packet's upper layer.
struct Upper {
  uint8_t protocol = 0;
  size_t offset = 0;
  size_t length = 0;
};

std::optional<Upper> read_upper(std::span<const uint8_t> packet) {
  if (packet.empty()) return std::nullopt;
  if (packet[0] >> 4 == 4) {
    const auto ip = Ipv4View::parse(packet);
    if (!ip || ip->is_fragment()) return std::nullopt;
    return Upper{ip->protocol(), ip->header_bytes(), ip->payload().size()};
  }
  const auto ip = Ipv6View::parse(packet);
  if (!ip) return std::nullopt;
  const wire::Ipv6UpperLayer upper = wire::ipv6_upper_layer(*ip);
  if (upper.state != wire::Ipv6UpperLayer::State::kFound) return std::nullopt;
  return Upper{upper.protocol, upper.offset, ip->total_length() - upper.offset};
}

// A UDP checksum that comes out as 0 is sent as all ones, since 0 says "none" (RFC 768).
void store_checksum(uint8_t* field, wire::Sum sum, uint8_t protocol) {
  const uint16_t checksum = wire::checksum_finish(sum);
  wire::store16(field, checksum == 0 && protocol == wire::ip_protocol::kUdp ? 0xffff : checksum);
}

}  // namespace

bool complete_checksum(std::span<uint8_t> packet) {
  const auto upper = read_upper(packet);
  if (!upper) return false;
  size_t field = 0;
  size_t header_bytes = wire::IcmpView::kHeaderBytes;
  switch (upper->protocol) {
    case wire::ip_protocol::kTcp:
      field = wire::tcp_field::kChecksum;
      header_bytes = wire::TcpView::kHeaderBytes;
      break;
    case wire::ip_protocol::kUdp:
      field = wire::udp_field::kChecksum;
      break;
    case wire::ip_protocol::kIcmp:
    case wire::ip_protocol::kIcmpv6:
      field = wire::icmp_field::kChecksum;
      break;
    default:
      return false;
  }
  if (upper->length < header_bytes) return false;
  uint8_t* at = packet.data() + upper->offset;
  store_checksum(at + field, wire::checksum_add(0, at, upper->length), upper->protocol);
  return true;
}

std::optional<Segmenter> Segmenter::make(std::span<const uint8_t> packet, const Offload& offload) {
  const auto upper = read_upper(packet);
  if (!upper || offload.gso_bytes == 0) return std::nullopt;
  const uint8_t version = packet[0] >> 4;
  const auto bytes = packet.subspan(upper->offset, upper->length);
  size_t upper_header_bytes = 0;
  if (offload.gso_kind == GsoKind::kUdp && upper->protocol == wire::ip_protocol::kUdp) {
    if (bytes.size() < wire::UdpView::kHeaderBytes) return std::nullopt;
    upper_header_bytes = wire::UdpView::kHeaderBytes;
  } else if (offload.gso_kind == (version == 4 ? GsoKind::kTcp4 : GsoKind::kTcp6) &&
             upper->protocol == wire::ip_protocol::kTcp) {
    const auto tcp = wire::TcpView::parse(bytes);
    if (!tcp) return std::nullopt;
    upper_header_bytes = tcp->header_bytes();
  } else {
    return std::nullopt;
  }
  Segmenter made;
  made.version_ = version;
  made.protocol_ = upper->protocol;
  made.headers_ = packet.first(upper->offset + upper_header_bytes);
  made.payload_ = bytes.subspan(upper_header_bytes);
  made.upper_offset_ = upper->offset;
  made.segment_bytes_ = offload.gso_bytes;
  // One without payload is one packet all the same.
  made.segments_ =
      std::max<size_t>(1, (made.payload_.size() + offload.gso_bytes - 1) / offload.gso_bytes);
  if (made.segments_ > kSegmentsMax) return std::nullopt;
  return made;
}

size_t Segmenter::longest_bytes() const {
  return headers_.size() + std::min(payload_.size(), segment_bytes_);
}

size_t Segmenter::next(std::span<uint8_t> out) {
  using namespace wire;
  if (done()) return 0;
  const size_t at = index_ * segment_bytes_;
  const size_t payload_bytes = std::min(segment_bytes_, payload_.size() - at);
  const size_t length = headers_.size() + payload_bytes;
  if (length > out.size()) return 0;
  uint8_t* ip = out.data();
  std::memcpy(ip, headers_.data(), headers_.size());
  if (payload_bytes > 0) std::memcpy(ip + headers_.size(), payload_.data() + at, payload_bytes);

  const uint8_t* addresses = ip + ipv6_field::kSource;
  if (version_ == 4) {
    addresses = ip + ipv4_field::kSource;
    store16(ip + ipv4_field::kTotalLength, static_cast<uint32_t>(length));
    const size_t identification = load16(ip + ipv4_field::kIdentification) + index_;
    store16(ip + ipv4_field::kIdentification, static_cast<uint32_t>(identification));
    store16(ip + ipv4_field::kChecksum, 0);
    store16(ip + ipv4_field::kChecksum, checksum_finish(checksum_add(0, ip, upper_offset_)));
  } else {
    store16(ip + ipv6_field::kPayloadLength,
            static_cast<uint32_t>(length - Ipv6View::kHeaderBytes));
  }
  uint8_t* upper = ip + upper_offset_;
  const size_t upper_bytes = length - upper_offset_;
  const bool tcp = protocol_ == ip_protocol::kTcp;
  if (tcp) {
    write_tcp(upper, index_ + 1 == segments_);
  } else {
    store16(upper + udp_field::kLength, static_cast<uint32_t>(upper_bytes));
  }
  uint8_t* field = upper + (tcp ? tcp_field::kChecksum : udp_field::kChecksum);
  store16(field, 0);
  const Sum pseudo = checksum_pseudo_header(addresses, version_ == 4 ? 4 : 16,
                                            static_cast<uint32_t>(upper_bytes), protocol_);
  store_checksum(field, checksum_add(pseudo, upper, upper_bytes), protocol_);
  ++index_;
  return length;
}

// The end and the push belong to the last segment's data, "congestion window reduced" to the first
// packet that leaves (RFC 3168 6.1.2).
void Segmenter::write_tcp(uint8_t* upper, bool last) const {
  using namespace wire;
  const size_t offset = index_ * segment_bytes_;
  store32(upper + tcp_field::kSequence,
          load32(upper + tcp_field::kSequence) + static_cast<uint32_t>(offset));
  uint8_t& flags = upper[tcp_field::kFlags];
  if (!last) flags &= static_cast<uint8_t>(~(tcp_flag::kFin | tcp_flag::kPsh));
  if (index_ > 0) flags &= static_cast<uint8_t>(~tcp_flag::kCwr);
}

}  // namespace apo
