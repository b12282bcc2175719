// When the packet link changes between its plain socket and its ring.
#include "links/receive_policy.h"
#include "check.h"

namespace {

using apo::ReceivePolicy;

constexpr uint64_t kWindow = ReceivePolicy::kWindowUs;

// One window of so many packets, told in ten parts; whether it made for a change.
bool window(ReceivePolicy& policy, uint64_t& now_us, uint64_t packets) {
  bool change = false;
  for (int part = 0; part < 10; ++part) {
    now_us += kWindow / 10;
    change |= policy.add(now_us, packets / 10, 0);
  }
  return change;
}

void follows_the_load() {
  ReceivePolicy policy;
  uint64_t now_us = 1'000'000;
  for (int i = 0; i < 5; ++i) CHECK(!window(policy, now_us, 900));
  CHECK(!window(policy, now_us, 5000));
  CHECK(window(policy, now_us, 5000));
  policy.changed(now_us, true);
  for (int i = 0; i < 5; ++i) CHECK(!window(policy, now_us, 5000));
  // The load is over: back, and at once into the ring with the next.
  window(policy, now_us, 100);
  CHECK(window(policy, now_us, 100));
  policy.changed(now_us, false);
  window(policy, now_us, 5000);
  CHECK(window(policy, now_us, 5000));
}

void tries_seldom_what_did_not_help() {
  ReceivePolicy policy;
  uint64_t now_us = 1'000'000;
  uint64_t trials = 0;
  bool ring = false;
  // Packets that wait for our answers: half as many come through the ring.
  for (int i = 0; i < 2000; ++i) {
    if (!window(policy, now_us, ring ? 2500 : 5000)) continue;
    ring = !ring;
    if (ring) ++trials;
    policy.changed(now_us, ring);
  }
  // 20 s: at first after a quarter of a second, then doubling to 8 s.
  CHECK(trials >= 4 && trials <= 8);
}

void counts_bytes_and_gaps() {
  ReceivePolicy policy;
  uint64_t now_us = 1'000'000;
  (void)policy.add(now_us, 40, 40 * 64'000);
  CHECK(policy.add(now_us + kWindow, 1, 64'000));
  // What was long ago is no load.
  ReceivePolicy idle;
  (void)idle.add(now_us, 100'000, 0);
  CHECK(!idle.add(now_us + 10 * kWindow, 1, 0));
}

}  // namespace

int main() {
  follows_the_load();
  tries_seldom_what_did_not_help();
  counts_bytes_and_gaps();
}
