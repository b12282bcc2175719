// What one fragment says of itself, read once and checked for everything that can be checked
// without the others. Pure: no state, no clock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace apo {

struct FragmentFacts {
  enum class State : uint8_t {
    kNotFragment,      // a whole packet (an atomic fragment, too: RFC 6946), or no packet at all
    kFragment,         // one that may be kept
    kBadLength,        // no data, or not the last and no multiple of eight bytes
    kTiny,             // TCP's ports and flags would be in two fragments (RFC 1858, 3128)
    kIncompleteChain,  // IPv6: the first does not hold all headers (RFC 7112)
    kTooLong,          // would make a packet of more than 65,535 bytes
  };

  State state = State::kNotFragment;
  uint8_t version = 4;
  uint8_t protocol = 0;  // IPv4; the next header of IPv6 may differ between fragments
  uint8_t ecn = 0;       // 0 to 3
  bool more = false;     // not the last
  uint32_t identification = 0;
  uint32_t offset = 0;  // of the data, in bytes
  const uint8_t* source = nullptr;
  const uint8_t* destination = nullptr;
  std::span<const uint8_t> packet;  // without what lies behind its end
  std::span<const uint8_t> data;
  // IPv6: where the fragment header begins, where the field lies that announces it, and what it says
  // comes next. IPv4: the header's end, 0, 0.
  uint16_t split_bytes = 0;
  uint16_t next_header_field = 0;
  uint8_t next_header = 0;

  [[nodiscard]] uint32_t end() const { return offset + static_cast<uint32_t>(data.size()); }
  [[nodiscard]] size_t header_bytes() const { return packet.size() - data.size(); }
};

// Pointers in the answer point into `packet`.
[[nodiscard]] FragmentFacts read_fragment(std::span<const uint8_t> packet);

}  // namespace apo
