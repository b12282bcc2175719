// What must be written over a packet's copy so that it looks as it would on a wire: a checksum that was
// left to somebody else (`ChecksumState::kPartial`), and the lengths of a super-packet.
//
// Pure. The packet itself is only read; it may say anything, and what makes no sense is left as it is.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "wire/packet_descriptor.h"

namespace apo {

// Two bytes of a packet and what they should be.
struct PacketRepair {
  uint32_t offset = 0;
  uint16_t value = 0;
};

struct PacketRepairs {
  std::array<PacketRepair, 4> list{};
  size_t count = 0;

  void add(size_t offset, uint16_t value) {
    list[count++] = {static_cast<uint32_t>(offset), value};
  }
};

// None for a packet that is whole already, which is the usual case and costs two comparisons.
[[nodiscard]] PacketRepairs packet_repairs(std::span<const uint8_t> packet, const Offload& offload);

}  // namespace apo
