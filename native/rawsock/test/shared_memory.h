// The shared memory that JavaScript makes in a runtime, made here for tests: rings, pool, a
// worker's port.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "memory/frame_pool.h"
#include "memory/ring.h"

namespace apo::test {

inline std::vector<uint32_t> ring_memory(uint32_t capacity) {
  return std::vector<uint32_t>(kRingFirstSlotWord + capacity * kRingSlotWords);
}

// The map of src/layer3-ip/pool.ts.
inline std::vector<uint32_t> pool_memory(uint32_t partitions, uint32_t small, uint32_t large) {
  const uint32_t control = 64;
  const uint32_t meta = control + partitions * 64;
  const uint32_t stride = small + large * 32;
  uint32_t first = 32;
  while (first * 2048ull < 4ull * (meta + (first + partitions * stride) * 4)) first += 32;
  std::vector<uint32_t> words((first + partitions * stride) * 512);
  const uint32_t header[] = {FramePool::kMagic, partitions, small, large, first, meta, control};
  std::copy(std::begin(header), std::end(header), words.begin());
  return words;
}

}  // namespace apo::test
