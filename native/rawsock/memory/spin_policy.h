// Whether a thread that has nothing to do looks a little longer before it sleeps.
//
// To wake a thread whose processor has halted takes some 20 microseconds on a virtual machine; one that
// still looks sees the word change in less than one. But looking takes the processor from others, in
// vain when what is waited for comes late, or must be made by this very processor. So short sleeps are
// counted: after enough of them looking is tried, and each time that it fails twice running, the next
// trial takes twice as many. Who sleeps long never looks.
//
// Pure: it reads no clock.
#pragma once

#include <algorithm>
#include <cstdint>

namespace apo {

class SpinPolicy {
 public:
  // About what a sleep and its wake-up cost both sides together.
  static constexpr uint32_t kSpinUs = 50;
  static constexpr uint32_t kFirstSleeps = 8;
  static constexpr uint32_t kSleepsMax = 8192;

  // How long to look, in microseconds.
  [[nodiscard]] uint32_t spin_us() const { return sleeps_left_ > 0 ? 0 : kSpinUs; }

  // It has looked; `hit`: the word changed meanwhile.
  void spun(bool hit) {
    if (hit) {
      failures_ = 0;
      next_sleeps_ = kFirstSleeps;
    } else if (++failures_ == 2) {
      failures_ = 0;
      sleeps_left_ = next_sleeps_;
      next_sleeps_ = std::min(2 * next_sleeps_, kSleepsMax);
    }
  }

  // It has slept without having looked before.
  void slept(uint64_t us) {
    if (us < kSpinUs && sleeps_left_ > 0) --sleeps_left_;
  }

 private:
  uint32_t sleeps_left_ = kFirstSleeps;  // short ones, before the next trial
  uint32_t next_sleeps_ = kFirstSleeps;
  uint32_t failures_ = 0;
};

}  // namespace apo
