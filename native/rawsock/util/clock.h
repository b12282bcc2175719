// The monotonic clock in microseconds, as timers and arrival times are given.
#pragma once

#include <time.h>

#include <cstdint>

namespace apo {

inline uint64_t clock_us() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000 + static_cast<uint64_t>(now.tv_nsec) / 1000;
}

}  // namespace apo
