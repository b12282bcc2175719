// The packets that the native thread sends of its own accord: echo replies and port-unreachable
// errors; and the budget that keeps errors from being an amplifier.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "ip/ip_input.h"

namespace apo {

// Builds the reply to an echo request that `check_input` accepted. Returns its length, or 0 when
// `out` is too small for it. `request` is the whole packet that the answer's pointers point into.
[[nodiscard]] size_t build_echo_reply(const InputPacket& input, std::span<const uint8_t> request,
                                      std::span<uint8_t> out);

// Builds "port unreachable" about a UDP packet, quoting as much of it as the standards let fit: 576
// bytes in all on IPv4 (RFC 1812 4.3.2.3), 1,280 on IPv6 (RFC 4443 2.4 c). 0 when `out` is too
// small.
[[nodiscard]] size_t build_port_unreachable(const InputPacket& input,
                                            std::span<const uint8_t> offender,
                                            std::span<uint8_t> out);

// Token buckets for errors, one for each of 256 groups of destinations (by keyed hash, so that one
// flooded peer does not silence all others and nobody outside can choose his neighbours). The table
// never grows.
class ErrorBudget {
 public:
  static constexpr uint32_t kBurst = 32;
  static constexpr uint32_t kIntervalUs = 10'000;  // one more error each: 100 a second

  // Takes one token of the group; false when it has none.
  [[nodiscard]] bool take(uint32_t destination_hash, uint64_t now_us);

 private:
  struct Bucket {
    uint64_t refilled_us = 0;
    uint32_t tokens = kBurst;
  };
  std::array<Bucket, 256> buckets_{};
};

}  // namespace apo
