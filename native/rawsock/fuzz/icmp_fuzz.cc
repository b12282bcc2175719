// Any bytes as an ICMP and as an ICMPv6 message, with a checksum that is right: echoes, and errors
// with what they quote.
#include "input_harness.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  apo::fuzz::check_upper({data, size}, false, 1, 2);
  apo::fuzz::check_upper({data, size}, true, 58, 2);
  return 0;
}
