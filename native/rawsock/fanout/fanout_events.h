// What the engine's thread tells the app: datagrams it has no source for, and frames for receivers
// on TCP.
//
// A bounded queue between two threads. The waker is called once when the queue turns from empty to
// not empty.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <vector>

#include "util/ip_endpoint.h"

namespace apo {

struct FanoutEvent {
  enum class Kind : uint32_t { kDatagram = 1, kFrames = 2, kFailed = 3 };

  Kind kind = Kind::kDatagram;
  uint32_t subject = 0;  // socket or track
  IpEndpoint from;       // kDatagram
  uint32_t ticket = 0;   // kFrames, and the errno of kFailed
  bool key = false;
  bool last = false;
  uint32_t rtp_time = 0;
  uint32_t seq = 0;
  std::vector<uint32_t> offsets;  // kFrames: where each packet's four-byte prefix starts
  std::vector<uint8_t> bytes;
};

class FanoutEventQueue {
 public:
  static constexpr size_t kDatagramsMax = 8'192;
  static constexpr size_t kFrameBytesMax = 64u << 20;

  explicit FanoutEventQueue(std::function<void()> waker) : waker_(std::move(waker)) {}

  // False: the app is too far behind, and the event was not taken.
  bool push(FanoutEvent event) {
    {
      const std::lock_guard lock(mutex_);
      const bool frames = event.kind == FanoutEvent::Kind::kFrames;
      // An answer to a ticket that says "that was all" is always taken: it is empty, and somebody
      // waits for it.
      if (frames && !event.bytes.empty() && frame_bytes_ + event.bytes.size() > kFrameBytesMax)
        return false;
      if (event.kind == FanoutEvent::Kind::kDatagram && datagrams_ >= kDatagramsMax) return false;
      if (frames) frame_bytes_ += event.bytes.size();
      if (event.kind == FanoutEvent::Kind::kDatagram) datagrams_++;
      events_.push_back(std::move(event));
      if (woken_) return true;
      woken_ = true;
    }
    waker_();
    return true;
  }

  // Moves events to `out` until `bytes_max` bytes would be passed; at least one event if there is
  // any.
  void take(std::vector<FanoutEvent>& out, size_t bytes_max, size_t events_max) {
    const std::lock_guard lock(mutex_);
    size_t bytes = 0;
    while (!events_.empty() && out.size() < events_max) {
      FanoutEvent& event = events_.front();
      bytes += event.bytes.size();
      if (!out.empty() && bytes > bytes_max) break;
      if (event.kind == FanoutEvent::Kind::kFrames) frame_bytes_ -= event.bytes.size();
      if (event.kind == FanoutEvent::Kind::kDatagram) datagrams_--;
      out.push_back(std::move(event));
      events_.pop_front();
    }
    if (events_.empty()) woken_ = false;
  }

 private:
  std::function<void()> waker_;
  std::mutex mutex_;
  std::deque<FanoutEvent> events_;
  size_t frame_bytes_ = 0;
  size_t datagrams_ = 0;
  bool woken_ = false;
};

}  // namespace apo
