// The impairment of the `mem` wire: its generators against published numbers, each impairment alone
// against what it promises, the queue against arithmetic, and settings that are out of bounds. That
// TypeScript decides alike is test/layer3-ip/impairment.test.ts's matter.
#include "links/impairment.h"

#include <array>
#include <initializer_list>
#include <limits>
#include <vector>

#include "check.h"

namespace {

using namespace apo;

constexpr uint64_t kHalf = ImpairmentSettings::kCertain / 2;

void generators_draw_the_published_numbers() {
  SeedMixer mixer(1234567);
  for (const uint64_t word :
       {6457827717110365317u, 3203168211198807973u, 9817491932198370423u, 4593380528125082431u}) {
    CHECK(mixer.next() == word);
  }
  RandomStream stream(std::array<uint32_t, 4>{1, 2, 3, 4});
  for (const uint32_t word : {11520u, 0u, 5927040u, 70819200u, 2031721883u, 1637235492u}) {
    CHECK(stream.next() == word);
  }
  CHECK(RandomStream::scale(UINT32_MAX, 1 << 26) == (1 << 26) - 1);
  CHECK(RandomStream::scale(0, 1 << 26) == 0 && RandomStream::scale(UINT32_MAX, 1) == 0);
}

void copper_delivers_at_once() {
  const ImpairmentSettings settings;
  CHECK(!settings.active());
  Impairment line(settings, 1, 2);
  for (uint64_t now = 0; now < 100; ++now) {
    const ImpairmentDecision decision = line.decide(now, 1500);
    CHECK(decision.fate == PacketFate::kDelivered && decision.at_us == now);
    CHECK(decision.copy_at_us == ImpairmentDecision::kNever && !decision.reordered);
    CHECK(decision.corrupt_bit == ImpairmentDecision::kNoBit);
  }
}

size_t losses(const ImpairmentSettings& settings, uint32_t to, size_t packets) {
  CHECK(settings.active());
  Impairment line(settings, 1, to);
  size_t lost = 0;
  for (size_t i = 0; i < packets; ++i) lost += line.decide(i, 100).fate == PacketFate::kLost;
  return lost;
}

void loss_is_as_often_as_asked_for() {
  ImpairmentSettings settings;
  settings.loss = ImpairmentSettings::kCertain / 10;
  const size_t lost = losses(settings, 2, 100'000);
  CHECK(lost > 9'700 && lost < 10'300);
  CHECK(losses(settings, 2, 100'000) == lost);
  CHECK(losses(settings, 3, 100'000) != lost);
  settings.seed_high = 1;
  CHECK(losses(settings, 2, 100'000) != lost);
  settings.loss = ImpairmentSettings::kCertain;
  CHECK(losses(settings, 2, 1000) == 1000);
}

// Burst lengths are geometric: 1/r packets on average.
void bad_spells_last_as_long_as_asked_for() {
  ImpairmentSettings settings;
  settings.burst_enter = ImpairmentSettings::kCertain / 100;
  settings.burst_leave = ImpairmentSettings::kCertain / 5;
  settings.burst_loss_bad = ImpairmentSettings::kCertain;
  Impairment line(settings, 1, 2);
  size_t lost = 0;
  size_t bursts = 0;
  bool before = false;
  constexpr size_t kPackets = 200'000;
  for (size_t i = 0; i < kPackets; ++i) {
    const bool is_lost = line.decide(i, 100).fate == PacketFate::kLostInBurst;
    lost += is_lost;
    bursts += is_lost && !before;
    before = is_lost;
  }
  const double mean = static_cast<double>(lost) / static_cast<double>(bursts);
  CHECK(mean > 4.7 && mean < 5.3);
  const double share = static_cast<double>(lost) / kPackets;
  CHECK(share > 0.043 && share < 0.052);  // p / (p + r) = 0.0476
  settings.burst_enter = 0;
  line.change(settings);
  CHECK(line.decide(0, 100).fate == PacketFate::kDelivered);
}

void jitter_is_within_its_bounds() {
  for (const uint64_t normal : {0u, 1u}) {
    ImpairmentSettings settings;
    settings.delay_us = 5000;
    settings.jitter_us = 999;
    settings.jitter_is_normal = normal;
    Impairment line(settings, 1, 2);
    uint64_t sum = 0;
    size_t near = 0;
    for (uint64_t i = 0; i < 20'000; ++i) {
      const uint64_t extra = line.decide(i, 100).at_us - i - 5000;
      CHECK(extra <= 999);
      sum += extra;
      near += extra >= 250 && extra < 750;
    }
    CHECK(sum / 20'000 > 490 && sum / 20'000 < 510);
    if (normal == 1) {
      CHECK(near > 17'500);
    } else {
      CHECK(near > 9'700 && near < 10'300);
    }
    settings.keeps_order = 1;
    line.change(settings);
    uint64_t last = 0;
    for (uint64_t i = 0; i < 1000; ++i) {
      const uint64_t at = line.decide(i, 100).at_us;
      CHECK(at >= last);
      last = at;
    }
  }
}

void copies_bits_and_held_packets() {
  ImpairmentSettings settings;
  settings.duplicate = kHalf;
  settings.corrupt = kHalf;
  settings.reorder = kHalf;
  settings.reorder_us = 700;
  Impairment line(settings, 1, 2);
  std::vector<bool> flipped(80);
  size_t copies = 0;
  size_t held = 0;
  for (int i = 0; i < 4000; ++i) {
    const ImpairmentDecision decision = line.decide(10, 10);
    CHECK(decision.at_us == 10 || (decision.at_us == 710 && decision.reordered));
    held += decision.at_us == 710;
    copies += decision.copy_at_us != ImpairmentDecision::kNever;
    if (decision.corrupt_bit == ImpairmentDecision::kNoBit) continue;
    CHECK(decision.corrupt_bit < 80);
    flipped[decision.corrupt_bit] = true;
  }
  CHECK(copies > 1850 && copies < 2150 && held > 1850 && held < 2150);
  for (const bool seen : flipped) CHECK(seen);
  CHECK(line.decide(0, 0).corrupt_bit == ImpairmentDecision::kNoBit);
}

// 8 Mbit/s: a byte a microsecond.
void the_rate_spaces_packets_and_the_queue_is_bounded() {
  ImpairmentSettings settings;
  settings.rate_bits_per_second = 8'000'000;
  settings.queue_bytes = 3000;
  Impairment line(settings, 1, 2);
  CHECK(line.decide(1000, 1000).at_us == 2000);
  CHECK(line.decide(1000, 1000).at_us == 3000);
  CHECK(line.decide(1000, 1000).at_us == 4000);
  CHECK(line.decide(1000, 1).fate == PacketFate::kQueueFull);
  CHECK(line.decide(1500, 501).fate == PacketFate::kQueueFull);
  CHECK(line.decide(1500, 500).at_us == 4500);
  CHECK(line.decide(1400, 100).fate == PacketFate::kQueueFull);  // a clock that goes back stands
  CHECK(line.decide(4500, 65'535).at_us == 4500 + 65'535);       // an idle line takes any length
  settings.rate_bits_per_second = 16'000'000;
  line.change(settings);
  CHECK(line.decide(4500, 1).fate == PacketFate::kQueueFull);  // what waited still waits
  CHECK(line.decide(4500 + 32'768, 1000).at_us == 4500 + 32'768 + 500);
  settings.rate_bits_per_second = 0;
  line.change(settings);
  CHECK(line.decide(1, 9000).at_us == 1);
}

// No rounding error adds up: after a million packets that do not divide evenly the line is at the
// very bit.
void serialisation_does_not_drift() {
  ImpairmentSettings settings;
  settings.rate_bits_per_second = 7'777'777;
  settings.queue_bytes = ImpairmentSettings::kQueueBytesMax;
  Impairment line(settings, 1, 2);
  uint64_t last = 0;
  uint64_t bits = 0;
  for (int i = 0; i < 1'000'000; ++i) {
    const uint32_t length = 20 + static_cast<uint32_t>(i) % 97;
    bits += length * 8;
    last = line.decide(0, length).at_us;
    CHECK(last == (bits * 1'000'000 + 7'777'776) / 7'777'777);
  }
}

void extremes_do_not_overflow() {
  ImpairmentSettings settings;
  settings.rate_bits_per_second = ImpairmentSettings::kRateMin;
  settings.queue_bytes = ImpairmentSettings::kQueueBytesMax;
  Impairment line(settings, UINT32_MAX, UINT32_MAX);
  while (line.decide(0, 65'535).fate == PacketFate::kDelivered) {
  }
  settings.rate_bits_per_second = ImpairmentSettings::kRateMax;
  line.change(settings);
  // 256 MiB at a terabit a second are 2,148 microseconds.
  CHECK(line.decide(2148, 1500).at_us == 2149);
  CHECK(line.decide(uint64_t{1} << 53, 1500).at_us == (uint64_t{1} << 53) + 1);
}

void settings_are_checked() {
  std::array<double, ImpairmentSettings::kFields> numbers{};
  ImpairmentSettings settings;
  settings.loss = 5;
  settings.mtu = 1500;
  settings.to(numbers);
  CHECK(ImpairmentSettings::from(numbers) == settings);
  CHECK(!ImpairmentSettings::from(std::span(numbers).first(17)));
  for (size_t i = 0; i < numbers.size(); ++i) {
    for (const double bad : {-1.0, 0.5, 1e13, std::numeric_limits<double>::quiet_NaN()}) {
      auto changed = numbers;
      changed[i] = bad;
      CHECK(!ImpairmentSettings::from(changed));
    }
  }
  settings.rate_bits_per_second = 999;
  settings.to(numbers);
  CHECK(!ImpairmentSettings::from(numbers));
}

void what_is_too_long_does_not_pass() {
  ImpairmentSettings settings;
  settings.mtu = 1500;
  Impairment line(settings, 1, 2);
  CHECK(line.decide(1, 1501).fate == PacketFate::kTooBig);
  CHECK(line.decide(1, 1500).fate == PacketFate::kDelivered);
}

}  // namespace

int main() {
  generators_draw_the_published_numbers();
  copper_delivers_at_once();
  loss_is_as_often_as_asked_for();
  bad_spells_last_as_long_as_asked_for();
  jitter_is_within_its_bounds();
  copies_bits_and_held_packets();
  the_rate_spaces_packets_and_the_queue_is_bounded();
  serialisation_does_not_drift();
  extremes_do_not_overflow();
  settings_are_checked();
  what_is_too_long_does_not_pass();
  return 0;
}
