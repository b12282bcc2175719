// When a queue of the packet link reads its ring and when its plain socket.
//
// A TPACKET_V3 block reaches us when it is full or its timer (1 ms at the least) has ended: fine
// under load, and ten times too late for a ping. A plain socket wakes us for every packet: at once,
// and too often under load. So the queue measures its load and changes over, and when the ring turns
// out to be no better (packets that wait for our answers come slower through it), it goes back and
// tries again later and later.
//
// Pure: the time is handed in.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace apo {

class ReceivePolicy {
 public:
  static constexpr uint64_t kWindowUs = 10'000;
  // Of load: a packet is one, and so are each 2,048 bytes. Measured on veth: above 100,000 packets a
  // second, waking for each costs the sender's CPU more than the copy does.
  static constexpr uint64_t kRingAbove = 1000;
  static constexpr uint64_t kFirstHoldUs = 250'000;
  static constexpr uint64_t kHoldMaxUs = 8'000'000;

  // The load at which the ring is tried, and half of which ends it.
  explicit ReceivePolicy(uint64_t ring_above = kRingAbove) : ring_above_(ring_above) {}

  // Tells of what was received (nothing counts, too). True: change over.
  bool add(uint64_t now_us, size_t packets, size_t bytes) {
    if (now_us - window_us_ >= kWindowUs) {
      const bool whole = now_us - window_us_ < 2 * kWindowUs;
      const uint64_t load = whole ? load_ : 0;
      load_ = 0;
      window_us_ = now_us;
      if (judge(now_us, load)) return true;
    }
    load_ += packets + bytes / 2048;
    return false;
  }

  // The other one is read from here on.
  void changed(uint64_t now_us, bool ring) {
    ring_ = ring;
    trial_ = ring;
    load_ = 0;
    window_us_ = now_us;
  }

 private:
  bool judge(uint64_t now_us, uint64_t load) {
    if (!ring_) {
      before_ = load;
      return load >= ring_above_ && now_us >= hold_until_us_;
    }
    if (load < ring_above_ / 2 || (trial_ && load < before_ * 3 / 4)) {
      // Less than before came through the ring: was it the ring, or has the load just ended? Either
      // way the next trial may wait.
      if (trial_) {
        hold_us_ = std::clamp(hold_us_ * 2, kFirstHoldUs, kHoldMaxUs);
        hold_until_us_ = now_us + hold_us_;
      }
      return true;
    }
    trial_ = false;
    hold_us_ = 0;
    return false;
  }

  const uint64_t ring_above_;
  bool ring_ = false;
  bool trial_ = false;  // the ring's first window
  uint64_t window_us_ = 0;
  uint64_t load_ = 0;
  uint64_t before_ = 0;  // the load of the window that led to the ring
  uint64_t hold_us_ = 0;
  uint64_t hold_until_us_ = 0;
};

}  // namespace apo
