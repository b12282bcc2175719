// The fan-out group of a packet link: gives each queue its frames, through its plain socket or its
// ring, as the queue wants.
//
// Changing the program makes the kernel wait until nobody runs the old one any more (some 10 ms), so
// a thread of its own does that, from the first change on. The new program is in force long before
// that wait is over.
#pragma once

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "links/packet_sockets.h"

namespace apo {

class PacketFanout {
 public:
  PacketFanout(uint32_t queues, uint32_t key) : queues_(queues), key_(key) {}
  PacketFanout(const PacketFanout&) = delete;
  PacketFanout& operator=(const PacketFanout&) = delete;
  ~PacketFanout();

  // All plain sockets, in order, then all rings': their places in the group are their numbers in
  // the program. 0, or an errno. The sockets outlive this.
  [[nodiscard]] int join(const std::vector<std::unique_ptr<PacketSockets>>& sockets);

  // From any thread: this queue's frames are to come that way from now on. False: it cannot be.
  bool request(uint32_t queue, bool ring);
  // The last request has been carried out to its end.
  [[nodiscard]] bool is_settled(uint32_t queue, bool ring) const {
    return (applied_.load(std::memory_order_acquire) >> queue & 1) == (ring ? 1u : 0u);
  }
  // Changes do not work here: nobody is to wait for one.
  [[nodiscard]] bool has_failed() const { return failed_.load(std::memory_order_acquire); }

 private:
  static void* entry(void* self);
  void run();
  [[nodiscard]] int apply(uint32_t rings);

  const uint32_t queues_;
  const uint32_t key_;
  int fd_ = -1;  // any member speaks for the group
  std::mutex mutex_;
  std::condition_variable changed_;
  uint32_t wanted_ = 0;
  bool ending_ = false;
  bool running_ = false;
  pthread_t thread_{};
  std::atomic<uint32_t> applied_ = 0;
  std::atomic<bool> failed_ = false;
};

}  // namespace apo
