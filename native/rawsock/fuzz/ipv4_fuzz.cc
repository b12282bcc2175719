// Any bytes as an IPv4 packet: as they are, and with the header's checksum and destination made
// right.
#include <vector>

#include "input_harness.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  apo::fuzz::check({data, size});
  std::vector<uint8_t> packet(data, data + size);
  if (size >= 20) {
    std::memcpy(&packet[apo::wire::ipv4_field::kDestination], apo::fuzz::kOwn4, 4);
    const size_t header = std::min(size, static_cast<size_t>(packet[0] & 15) * 4);
    apo::wire::store16(&packet[apo::wire::ipv4_field::kChecksum], 0);
    const auto sum = apo::wire::checksum_add(0, packet.data(), header);
    apo::wire::store16(&packet[apo::wire::ipv4_field::kChecksum], apo::wire::checksum_finish(sum));
  }
  apo::fuzz::check(packet);
  return 0;
}
