// A kind, a segment size and any packet: its segments are valid packets with right checksums that
// carry all of its payload; and a checksum completed in place changes nothing else.
#include <algorithm>
#include <vector>

#include "input_harness.h"
#include "ip/segmentation.h"

namespace {

using namespace apo;
using fuzz::require;

// Where a whole packet's upper layer is, and whether its checksum is right.
size_t check_whole(std::span<const uint8_t> packet) {
  size_t offset = 0, address_at = 12;
  uint8_t protocol = 0;
  if (packet[0] >> 4 == 4) {
    const auto ip = wire::Ipv4View::parse(packet);
    require(ip && ip->total_length() == packet.size());
    require(wire::checksum_is_valid(wire::checksum_add(0, packet.data(), ip->header_bytes())));
    offset = ip->header_bytes();
    protocol = ip->protocol();
  } else {
    const auto ip = wire::Ipv6View::parse(packet);
    require(ip && ip->total_length() == packet.size());
    const auto upper = wire::ipv6_upper_layer(*ip);
    require(upper.state == wire::Ipv6UpperLayer::State::kFound);
    offset = upper.offset;
    protocol = upper.protocol;
    address_at = 8;
  }
  const size_t length = packet.size() - offset;
  const wire::Sum pseudo =
      wire::checksum_pseudo_header(packet.data() + address_at, address_at == 12 ? 4 : 16,
                                   static_cast<uint32_t>(length), protocol);
  require(wire::checksum_is_valid(wire::checksum_add(pseudo, packet.data() + offset, length)));
  return offset;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 3) return 0;
  const auto kind = static_cast<GsoKind>(data[0] & 3);
  const uint16_t gso_bytes = wire::load16(data + 1);
  const std::vector<uint8_t> packet(data + 3, data + size);

  std::vector<uint8_t> completed = packet;
  if (complete_checksum(completed)) {
    size_t changed = 0;
    for (size_t i = 0; i < packet.size(); ++i) changed += completed[i] != packet[i];
    require(changed <= 2);
  } else {
    require(completed == packet);
  }

  auto segmenter = Segmenter::make(packet, {ChecksumState::kPartial, kind, gso_bytes});
  if (!segmenter) return 0;
  const size_t longest = segmenter->longest_bytes();
  require(segmenter->segments() <= Segmenter::kSegmentsMax && longest <= packet.size());
  std::vector<uint8_t> out(longest);
  size_t count = 0;
  std::vector<uint8_t> payload;
  while (const size_t length = segmenter->next(out)) {
    ++count;
    const std::span<const uint8_t> segment{out.data(), length};
    const size_t offset = check_whole(segment);
    const size_t header_bytes = kind == GsoKind::kUdp ? 8 : (segment[offset + 12] >> 4) * 4u;
    const auto part = segment.subspan(offset + header_bytes);
    require(part.size() <= gso_bytes);
    require(count == segmenter->segments() || part.size() == gso_bytes);
    payload.insert(payload.end(), part.begin(), part.end());
  }
  require(segmenter->done() && count == segmenter->segments());
  require(std::search(packet.begin(), packet.end(), payload.begin(), payload.end()) !=
              packet.end() ||
          payload.empty());
  return 0;
}
