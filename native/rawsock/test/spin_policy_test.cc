// When a thread looks before it sleeps: SpinPolicy alone, and two threads that ring for each other.
#include "memory/spin_policy.h"

#include <thread>

#include "check.h"
#include "memory/doorbell.h"

namespace {

using namespace apo;

void sleep_short(SpinPolicy& policy, uint32_t times) {
  for (uint32_t i = 0; i < times; ++i) {
    CHECK(policy.spin_us() == 0);
    policy.slept(SpinPolicy::kSpinUs - 1);
  }
}

void who_sleeps_long_never_looks() {
  SpinPolicy policy;
  for (int i = 0; i < 1000; ++i) {
    CHECK(policy.spin_us() == 0);
    policy.slept(SpinPolicy::kSpinUs);
  }
}

void short_sleeps_lead_to_a_trial() {
  SpinPolicy policy;
  sleep_short(policy, SpinPolicy::kFirstSleeps);
  CHECK(policy.spin_us() == SpinPolicy::kSpinUs);
  for (int i = 0; i < 1000; ++i) {
    policy.spun(true);
    policy.spun(false);  // one miss between hits is none
    CHECK(policy.spin_us() == SpinPolicy::kSpinUs);
  }
}

void trials_that_fail_come_less_and_less() {
  SpinPolicy policy;
  sleep_short(policy, SpinPolicy::kFirstSleeps);
  uint32_t sleeps = SpinPolicy::kFirstSleeps;
  for (int i = 0; i < 15; ++i) {
    policy.spun(false);
    CHECK(policy.spin_us() == SpinPolicy::kSpinUs);
    policy.spun(false);
    sleep_short(policy, sleeps);
    CHECK(policy.spin_us() == SpinPolicy::kSpinUs);
    sleeps = std::min(2 * sleeps, SpinPolicy::kSleepsMax);
  }
  // One hit makes the next trial cheap again.
  policy.spun(true);
  policy.spun(false);
  policy.spun(false);
  sleep_short(policy, SpinPolicy::kFirstSleeps);
  CHECK(policy.spin_us() == SpinPolicy::kSpinUs);
}

// No ring is lost, whether the other one looks or sleeps.
void no_ring_is_lost() {
  constexpr uint32_t kRounds = 20'000;
  uint32_t words[2] = {};
  const Doorbell mine(&words[0]);
  const Doorbell yours(&words[1]);
  const auto wait_for = [](const Doorbell& bell, uint32_t rung) {
    for (uint32_t seen = bell.read(); seen != rung; seen = bell.read()) bell.wait(seen, -1);
  };
  std::thread other([&] {
    for (uint32_t i = 1; i <= kRounds; ++i) {
      wait_for(yours, i);
      mine.ring();
    }
  });
  for (uint32_t i = 1; i <= kRounds; ++i) {
    yours.ring();
    wait_for(mine, i);
  }
  other.join();
}

}  // namespace

int main() {
  who_sleeps_long_never_looks();
  short_sleeps_lead_to_a_trial();
  trials_that_fail_come_less_and_less();
  no_ring_is_lost();
}
