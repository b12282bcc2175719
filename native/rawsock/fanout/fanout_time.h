// The one place where the fan-out engine reads clocks, and its single-writer counter.
#pragma once

#include <atomic>
#include <cstdint>
#include <ctime>

#include "fanout/rtp_track.h"

namespace apo {

inline int64_t clock_ns(clockid_t clock) {
  timespec t = {};
  ::clock_gettime(clock, &t);
  return static_cast<int64_t>(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}

inline int64_t mono_now() { return clock_ns(CLOCK_MONOTONIC); }
inline Arrival arrival_now() { return {mono_now(), clock_ns(CLOCK_REALTIME)}; }

// For counters that one thread writes: cheaper than a locked add.
inline void bump(std::atomic<uint64_t>& counter, uint64_t amount) {
  counter.store(counter.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
}

}  // namespace apo
