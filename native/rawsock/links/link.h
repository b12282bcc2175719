// What the native thread asks of a link. A link is one file behind this interface; the thread
// neither knows nor cares whether packets come from memory, a file descriptor or a network card.
//
// All calls come from the native thread, but for `close`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "thread/link_counters.h"

namespace apo {

// A whole IP packet to be sent, and what became of it: `result` is kTxPackets when the link took
// it, else the reason for which it was dropped.
struct OutgoingPacket {
  std::span<const uint8_t> bytes;
  LinkCounter result = LinkCounter::kTxDroppedNoRoute;
};

class Link {
 public:
  static constexpr size_t kBatch = 64;

  virtual ~Link() = default;

  // The longest IP packet that may be sent.
  [[nodiscard]] virtual size_t mtu() const = 0;

  // Up to `packets.size()` received packets, as views that stay valid until `release`.
  [[nodiscard]] virtual size_t receive(std::span<std::span<const uint8_t>> packets) = 0;
  virtual void release() = 0;

  // Sends a batch; when it returns, the packets' memory may be used again.
  virtual void send(std::span<OutgoingPacket> packets) = 0;

  // Before sleeping: from here on the link rings the thread's doorbell when a packet comes. False:
  // one is here.
  [[nodiscard]] virtual bool prepare_sleep() = 0;
  virtual void finish_sleep() = 0;

  // From any thread, before the thread is stopped: when it returns, nothing more comes in and nobody rings the
  // doorbell on the link's behalf. What is in already can still be received.
  virtual void close() = 0;
};

}  // namespace apo
