// How many packets a source may send: a token bucket for each source prefix, in a table of fixed
// size. One table serves all native threads, so a source whose flows are spread over the queues has
// one bucket all the same. No lock, no allocation, constant time; the clock is handed in.
//
// A bucket is one number, the time at which it will be full again (the "generic cell rate
// algorithm", ITU-T I.371 annex A): a packet moves it by one interval, and is refused when it lies
// more than `burst` intervals ahead. A bucket whose time has passed is full and says nothing; so
// the one to give up for a new source is that with the earliest time: the full one that is idle
// longest, else the fullest. The newcomer takes over what the old one had left: throwing buckets
// out by sending from many addresses wins nobody a packet.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "guard/source_hash.h"

namespace apo {

struct RateLimit {
  static constexpr uint32_t kPacketsPerSecondMax = 10'000'000;
  static constexpr uint32_t kBurstMax = 10'000'000;

  uint32_t packets_per_second = 0;  // 0: no limit
  uint32_t burst = 0;               // packets at once after a silence; at least 1
  uint8_t prefix_bits4 = 32;        // what counts as one source
  uint8_t prefix_bits6 = 64;

  [[nodiscard]] bool is_valid() const {
    return packets_per_second <= kPacketsPerSecondMax && burst <= kBurstMax &&
           (packets_per_second == 0 || burst >= 1) && prefix_bits4 <= 32 && prefix_bits6 <= 128;
  }
};

// A limit in the units that the table works in: 1/4096 microsecond.
class RatePace {
 public:
  RatePace() = default;
  explicit RatePace(const RateLimit& limit)
      : interval_(limit.packets_per_second == 0 ? 0 : kSecond / limit.packets_per_second),
        ahead_max_(interval_ * limit.burst),
        prefix_bits4_(limit.prefix_bits4),
        prefix_bits6_(limit.prefix_bits6) {}

  [[nodiscard]] bool is_limited() const { return interval_ != 0; }

 private:
  friend class RateTable;
  static constexpr unsigned kFractionBits = 12;
  static constexpr uint64_t kSecond = uint64_t{1'000'000} << kFractionBits;

  uint64_t interval_ = 0;   // between two packets of a source at its rate
  uint64_t ahead_max_ = 0;  // how far ahead a bucket's time may lie
  uint8_t prefix_bits4_ = 32;
  uint8_t prefix_bits6_ = 64;
};

class RateTable {
 public:
  static constexpr size_t kBuckets = 65'536;
  static constexpr size_t kWays = 8;  // buckets a source may be in
  static constexpr size_t kBytes = kBuckets * 16;

  explicit RateTable(HashKey key);

  // False: one packet too many from this source. Any thread. `shared`: others may call it at the
  // same time; without, it is cheaper.
  [[nodiscard]] bool take(const RatePace& pace, const PacketSource& source, uint64_t now_us,
                          bool shared);

 private:
  struct alignas(64) Set {
    std::array<uint64_t, kWays> tags{};  // the sources' hashes; 0: never used
    std::array<uint64_t, kWays> full_at{};
  };
  static constexpr size_t kSets = kBuckets / kWays;

  [[nodiscard]] uint64_t hash_of(const RatePace& pace, const PacketSource& source) const;

  const HashKey key_;
  const std::unique_ptr<Set[]> sets_;
};

}  // namespace apo
