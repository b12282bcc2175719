#include "memory/doorbell.h"

#include <algorithm>

#include "memory/spin_policy.h"
#include "util/clock.h"
#include "util/relax.h"

namespace apo {
namespace {

// Looks at the word between two readings of the clock: some hundred nanoseconds.
constexpr int kLooksAtOnce = 16;

// True: the word has another value.
bool changes_within(uint32_t* word, uint32_t expected, uint64_t us) {
  const std::atomic_ref<uint32_t> cell(*word);
  const uint64_t end_us = clock_us() + us;
  do {
    for (int i = 0; i < kLooksAtOnce; ++i) {
      if (cell.load(std::memory_order_seq_cst) != expected) return true;
      relax();
    }
  } while (clock_us() < end_us);
  return false;
}

}  // namespace

FutexResult futex_wait_patiently(uint32_t* word, uint32_t expected, int64_t timeout_us) {
  // A thread's own: what it waits for is of one kind.
  thread_local SpinPolicy policy;
  uint64_t spin_us = policy.spin_us();
  if (timeout_us >= 0) spin_us = std::min(spin_us, static_cast<uint64_t>(timeout_us));
  if (spin_us > 0) {
    const bool hit = changes_within(word, expected, spin_us);
    policy.spun(hit);
    if (hit) return FutexResult::kChanged;
    if (timeout_us >= 0) timeout_us -= static_cast<int64_t>(spin_us);
    return futex_wait(word, expected, timeout_us);
  }
  const uint64_t start_us = clock_us();
  const FutexResult result = futex_wait(word, expected, timeout_us);
  policy.slept(clock_us() - start_us);
  return result;
}

}  // namespace apo
