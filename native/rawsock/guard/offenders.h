// Who sent what was dropped, for tracing floods and scans back: a bounded table of source addresses
// with how far away they are, since when, how often and why, and the first bytes of the first
// packet. One native thread writes its own table, any other reads it meanwhile.
//
// Under a flood only a sample of the dropped packets is entered (about ten thousand a second at
// most), so that a dropped packet costs a few nanoseconds. Which ones is random, and a sampled
// packet counts for those passed over, so counts stay right on average. A full set gives up the
// address that has been silent longest.
//
// The distance is a guess: common systems start their hop limit at 32, 64, 128 or 255; it is the
// next of these minus what arrived. A forged packet may say anything there, but the same distance
// from many "sources" is a fact about the sender.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "guard/source_hash.h"
#include "ip/ip_address.h"
#include "thread/link_counters.h"

namespace apo {

struct Offender {
  static constexpr size_t kBytesMax = 64;

  IpAddress address;
  uint8_t distance = 0;  // hops
  LinkCounter last_reason = LinkCounter::kRxDroppedHeader;
  uint64_t count = 0;  // dropped packets; an estimate where sampled
  uint64_t first_us = 0;
  uint64_t last_us = 0;
  uint8_t byte_count = 0;
  std::array<uint8_t, kBytesMax> bytes{};  // of the first packet, from the IP header on
};

// Whether a packet dropped for this reason was wrong or unwelcome in itself. What is dropped for
// want of room, or only had nowhere to go, is nobody's offence.
[[nodiscard]] bool is_offence(LinkCounter reason);

// Hops from a sender whose packet arrived with this TTL or hop limit.
[[nodiscard]] inline uint8_t hops_from(uint8_t hop_limit) {
  for (const uint8_t initial : {32, 64, 128}) {
    if (hop_limit <= initial) return static_cast<uint8_t>(initial - hop_limit);
  }
  return static_cast<uint8_t>(255 - hop_limit);
}

class OffenderTable {
 public:
  static constexpr size_t kOffendersMax = 1024;
  static constexpr size_t kWays = 8;
  // Samples taken at full rate in one window; beyond them the share is lowered.
  static constexpr uint64_t kWindowUs = 10'000;
  static constexpr uint32_t kSamplesPerWindow = 100;

  explicit OffenderTable(HashKey key);

  // One packet dropped for an offence. The owner's thread alone.
  void dropped(LinkCounter reason, std::span<const uint8_t> bytes, uint64_t now_us) {
    if (skip_left_ != 0 && now_us < window_end_us_) {
      --skip_left_;
      return;
    }
    sample(reason, bytes, now_us);
  }

  // Appends all there are. Any thread.
  void read(std::vector<Offender>& offenders) const;

 private:
  // One record in 64-bit words, each read and written whole; `sequence` is odd while it changes.
  struct alignas(128) Record {
    uint64_t sequence = 0;
    uint64_t address[2] = {};
    uint64_t facts = 0;  // version | distance << 8 | byte count << 16 | reason << 32
    uint64_t count = 0;
    uint64_t first_us = 0;
    uint64_t last_us = 0;
    uint64_t bytes[Offender::kBytesMax / 8] = {};
  };
  struct Set {
    std::array<uint64_t, kWays> tags{};     // 0: free
    std::array<uint64_t, kWays> last_us{};  // of the record, for the choice of whom to give up
    std::array<Record, kWays> records{};
  };
  static constexpr size_t kSets = kOffendersMax / kWays;

  void sample(LinkCounter reason, std::span<const uint8_t> bytes, uint64_t now_us);
  void pace(uint64_t weight, uint64_t now_us);
  void enter(LinkCounter reason, std::span<const uint8_t> bytes, uint64_t weight, uint64_t now_us);
  uint64_t next_random();

  const HashKey key_;
  const std::unique_ptr<Set[]> sets_;
  uint64_t skip_left_ = 0;
  uint64_t skip_drawn_ = 0;
  uint64_t stride_ = 1;  // one packet in so many is sampled
  uint64_t window_start_us_ = 0;
  uint64_t window_end_us_ = 0;
  uint64_t window_drops_ = 0;
  uint32_t window_samples_ = 0;
  uint64_t random_;
};

}  // namespace apo
