// What a layer-2 worker shares with the native thread of one queue.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "memory/doorbell.h"
#include "memory/ring.h"

namespace apo {

inline constexpr size_t kWorkersMax = 16;
// Places beyond the workers': fan-out engines, which own no shard but the UDP ports that they open.
inline constexpr size_t kPlacesMax = kWorkersMax + 4;
inline constexpr size_t kPortBitmapWords = 65'536 / 32;

using PortBitmap = std::span<uint32_t, kPortBitmapWords>;

struct WorkerPort {
  RingMemory receive;   // native thread to worker
  RingMemory transmit;  // worker to native thread
  Doorbell doorbell;    // rung when the worker sleeps and packets have come
  // Bit p: the worker has something at port p.
  PortBitmap open_udp_ports;
  PortBitmap open_tcp_ports;
};

// A worker as its native thread sees it.
struct AttachedWorker {
  explicit AttachedWorker(const WorkerPort& shared)
      : port(shared), receive(shared.receive), transmit(shared.transmit) {}

  [[nodiscard]] bool has_open(PortBitmap ports, uint16_t number) const {
    const std::atomic_ref<uint32_t> word(ports[number / 32]);
    return (word.load(std::memory_order_relaxed) >> (number % 32) & 1) != 0;
  }

  WorkerPort port;
  RingProducer receive;
  RingConsumer transmit;
};

}  // namespace apo
