// Any 32 bytes as the descriptor of a packet to be sent, the rest as its frame: what leaves must
// pass our own checks.
#include <vector>

#include "input_harness.h"
#include "ip/ip_output.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace apo;
  PacketDescriptor::Words words;
  if (size < sizeof words) return 0;
  std::memcpy(words.data(), data, sizeof words);
  std::vector<uint8_t> frame(data + sizeof words, data + size);
  const PacketDescriptor descriptor = PacketDescriptor::decode(words);
  const OutputPacket output = finish_output(descriptor, frame, fuzz::own_addresses());
  if (!output.ready) return 0;
  fuzz::require(output.bytes.data() >= frame.data());
  fuzz::require(output.bytes.data() + output.bytes.size() <= frame.data() + frame.size());
  fuzz::check(output.bytes);
  return 0;
}
