// Any bytes as an IPv6 packet with its chain of extension headers: as they are, and with the
// destination made ours.
#include <vector>

#include "input_harness.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  apo::fuzz::check({data, size});
  std::vector<uint8_t> packet(data, data + size);
  if (size >= 40) std::memcpy(&packet[apo::wire::ipv6_field::kDestination], apo::fuzz::kOwn6, 16);
  apo::fuzz::check(packet);
  return 0;
}
