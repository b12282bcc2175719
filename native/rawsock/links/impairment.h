// What a bad line does to packets: delay, jitter, loss (independent and Gilbert-Elliott), reordering,
// duplication, corruption, a rate with a queue before it, and an MTU.
//
// Pure: it decides, and somebody else delivers. All of it is integer arithmetic, and
// src/layer3-ip/impairment.ts decides alike to the last bit (a test compares the two), so a trace in
// virtual time tells what the wire in real time would do. Each kind draws from a generator of its own:
// turning one on does not change what the others decide.
//
// A packet's way: MTU, queue and rate, loss, corruption, duplication, delay. So a lost packet has used
// the line, and a copy has not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "links/random_stream.h"

namespace apo {

// Probabilities are thresholds: p * 2^32. Times are microseconds.
struct ImpairmentSettings {
  static constexpr uint64_t kCertain = uint64_t{1} << 32;
  static constexpr uint64_t kTimeMaxUs = 60'000'000;
  static constexpr uint64_t kRateMin = 1000;
  static constexpr uint64_t kRateMax = 1'000'000'000'000;
  static constexpr uint64_t kQueueBytesMin = 1280;
  static constexpr uint64_t kQueueBytesMax = 256 * 1024 * 1024;
  static constexpr uint64_t kMtuMax = 65'535;
  // The fields as one array of numbers, in this order: how JavaScript hands them over.
  static constexpr size_t kFields = 18;

  uint32_t seed_low = 1;
  uint32_t seed_high = 0;
  uint64_t delay_us = 0;
  uint64_t jitter_us = 0;         // 0 to this is added to the delay
  uint64_t jitter_is_normal = 0;  // 1: a sum of four uniform draws; 0: one
  uint64_t keeps_order = 0;       // 1: jitter never lets a packet overtake another
  uint64_t loss = 0;
  uint64_t burst_enter = 0;  // Gilbert-Elliott: good to bad, before each packet
  uint64_t burst_leave = 0;  // bad to good
  uint64_t burst_loss_good = 0;
  uint64_t burst_loss_bad = 0;
  uint64_t reorder = 0;
  uint64_t reorder_us = 0;  // such a packet is held back for this long on top
  uint64_t duplicate = 0;
  uint64_t corrupt = 0;
  uint64_t rate_bits_per_second = 0;  // 0: no limit
  uint64_t queue_bytes = 256 * 1024;  // before the rate; beyond it the tail is dropped
  uint64_t mtu = 0;                   // 0: no limit

  // Whether each packet's fate is its own: then a super-packet must be taken apart before it is decided.
  [[nodiscard]] bool decides() const {
    return (jitter_us | loss | burst_enter | burst_loss_good | reorder | duplicate | corrupt |
            rate_bits_per_second) != 0;
  }

  // nullopt: not kFields whole numbers within their bounds.
  static std::optional<ImpairmentSettings> from(std::span<const double> numbers);
  void to(std::span<double, kFields> numbers) const;

  // False: a packet passes as if the line were a piece of copper.
  [[nodiscard]] bool active() const;
  [[nodiscard]] bool has_bursts() const { return burst_enter > 0 || burst_loss_good > 0; }
  [[nodiscard]] bool operator==(const ImpairmentSettings&) const = default;
};

enum class PacketFate : uint8_t {
  kDelivered = 0,
  kTooBig = 1,
  kQueueFull = 2,
  kLost = 3,
  kLostInBurst = 4,
};

struct ImpairmentDecision {
  static constexpr uint64_t kNever = UINT64_MAX;
  static constexpr uint32_t kNoBit = UINT32_MAX;

  PacketFate fate = PacketFate::kDelivered;
  bool reordered = false;         // held back by reorder_us, the packet or its copy
  uint32_t corrupt_bit = kNoBit;  // to be flipped: bit 0 is the first byte's lowest
  uint64_t at_us = kNever;
  uint64_t copy_at_us = kNever;  // when a second one comes, equal to the first
};

// One direction between two plugs.
class Impairment {
 public:
  // The same settings and plug numbers make the same decisions about the same packets.
  Impairment(const ImpairmentSettings& settings, uint32_t from, uint32_t to);

  // New settings for the packets to come. The generators go on (a seed is for life), and so does what
  // is in the queue.
  void change(const ImpairmentSettings& settings);

  // `length` is at most 65,535. `now_us` may go back a little: the queue's clock then stands.
  ImpairmentDecision decide(uint64_t now_us, uint32_t length);

 private:
  Impairment(const ImpairmentSettings& settings, SeedMixer mixer);

  // When the packet has left the queue; kNever: it does not fit.
  uint64_t pass_queue(uint64_t now_us, uint32_t length);
  bool loses_in_burst();
  uint64_t arrival(uint64_t left_us, bool& reordered);

  ImpairmentSettings settings_;
  RandomStream loss_;
  RandomStream burst_;
  RandomStream corrupt_;
  RandomStream duplicate_;
  RandomStream jitter_;
  RandomStream reorder_;
  bool line_is_bad_ = false;
  uint64_t last_at_us_ = 0;
  // What the line still has to send, in bits times 10^6, at `clock_us_`: so that a microsecond takes
  // away exactly as many as there are bits in a second.
  uint64_t clock_us_ = 0;
  uint64_t backlog_ = 0;
};

}  // namespace apo
