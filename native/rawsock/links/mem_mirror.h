// A plug of the `mem` wire without a runtime: every packet comes back with its addresses and UDP ports
// swapped, in its sender's thread. The checksums stay right, for a sum does not mind the order.
#pragma once

#include <cstdint>
#include <span>

#include "links/mem_plug.h"

namespace apo {

class MemMirror final : public MemPlug {
 public:
  using MemPlug::MemPlug;

  [[nodiscard]] bool is_mirror() const override { return true; }
  void deliver(const MemSender& sender, const MemTable& table,
               std::span<OutgoingPacket* const> packets) override;

 private:
  void send_back(const MemSender& sender, const MemTable& table,
                 std::span<const MemReflection> packets) const;
};

// Swaps source and destination, and the ports of UDP (not in a later fragment, which has none). What is
// no whole IP header stays as it is.
void swap_ends(std::span<uint8_t> packet);

}  // namespace apo
