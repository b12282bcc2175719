// An MTU, an identification and any packet: its fragments are valid and within the MTU, and put
// together again, in some order, they are the packet.
#include <algorithm>
#include <array>
#include <vector>

#include "input_harness.h"
#include "ip/fragmentation.h"
#include "ip/reassembly.h"

namespace {

using namespace apo;
using fuzz::require;

// What changes on the way: identification, flags and the header's checksum of IPv4.
std::vector<uint8_t> comparable(std::span<const uint8_t> packet) {
  std::vector<uint8_t> bytes(packet.begin(), packet.end());
  if (bytes[0] >> 4 == 4) {
    std::fill(bytes.begin() + 4, bytes.begin() + 8, uint8_t{0});
    std::fill(bytes.begin() + 10, bytes.begin() + 12, uint8_t{0});
  }
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 6) return 0;
  const size_t mtu = wire::load16(data);
  const uint32_t identification = wire::load32(data + 2);
  const std::vector<uint8_t> packet(data + 6, data + size);
  auto fragmenter = Fragmenter::make(packet, mtu, identification);
  if (!fragmenter) return 0;

  std::vector<std::vector<uint8_t>> pieces;
  std::vector<uint8_t> out(mtu);
  while (const size_t length = fragmenter->next(out)) {
    require(length <= mtu);
    pieces.emplace_back(out.begin(), out.begin() + static_cast<long>(length));
  }
  require(fragmenter->done());
  const bool six = packet[0] >> 4 == 6;
  const auto ip4 = wire::Ipv4View::parse(packet);
  const auto ip6 = wire::Ipv6View::parse(packet);
  if (!six && ip4->is_fragment()) return 0;
  const size_t length = six ? ip6->total_length() : ip4->total_length();

  static std::array<uint64_t, kLinkCounters> cells;
  static Reassembler reassembler({1, 2}, LinkCounters(cells));
  reassembler.clear();
  uint32_t random = identification;
  for (size_t i = pieces.size(); i > 1; --i) {
    random = random * 1'664'525 + 1'013'904'223;
    std::swap(pieces[i - 1], pieces[random % i]);
  }
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (six) {
      require(wire::Ipv6View::parse(pieces[i])->total_length() == pieces[i].size());
    } else {
      const auto piece = wire::Ipv4View::parse(pieces[i]);
      require(piece && piece->total_length() == pieces[i].size());
      const wire::Sum sum = wire::checksum_add(0, pieces[i].data(), piece->header_bytes());
      require(wire::checksum_is_valid(sum));
    }
    const auto result = reassembler.add(pieces[i], 0);
    // An MTU that small gives fragments that nobody should take.
    if (result.outcome == Reassembler::Outcome::kDropped) {
      require(result.reason == LinkCounter::kRxDroppedFragmentTiny ||
              result.reason == LinkCounter::kRxDroppedFragmentTooMany);
      return 0;
    }
    if (pieces.size() == 1) {
      require(result.outcome == Reassembler::Outcome::kNotFragment);
    } else if (i + 1 < pieces.size()) {
      require(result.outcome == Reassembler::Outcome::kWaiting);
    } else {
      require(result.outcome == Reassembler::Outcome::kComplete);
      require(comparable(result.datagram) == comparable({packet.data(), length}));
    }
  }
  return 0;
}
