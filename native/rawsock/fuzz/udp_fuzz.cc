// Any bytes as a UDP datagram over both IP versions, with a checksum that is right.
#include "input_harness.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  apo::fuzz::check_upper({data, size}, false, 17, 6);
  apo::fuzz::check_upper({data, size}, true, 17, 6);
  return 0;
}
