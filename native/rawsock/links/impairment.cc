#include "links/impairment.h"

#include <algorithm>
#include <cmath>

namespace apo {
namespace {

constexpr uint64_t kBacklogPerByte = 8 * 1'000'000;

struct Bounds {
  uint64_t ImpairmentSettings::*field;
  uint64_t most;
};

// In the array's order, behind the seed's two words.
constexpr Bounds kBounds[] = {
    {&ImpairmentSettings::delay_us, ImpairmentSettings::kTimeMaxUs},
    {&ImpairmentSettings::jitter_us, ImpairmentSettings::kTimeMaxUs},
    {&ImpairmentSettings::jitter_is_normal, 1},
    {&ImpairmentSettings::keeps_order, 1},
    {&ImpairmentSettings::loss, ImpairmentSettings::kCertain},
    {&ImpairmentSettings::burst_enter, ImpairmentSettings::kCertain},
    {&ImpairmentSettings::burst_leave, ImpairmentSettings::kCertain},
    {&ImpairmentSettings::burst_loss_good, ImpairmentSettings::kCertain},
    {&ImpairmentSettings::burst_loss_bad, ImpairmentSettings::kCertain},
    {&ImpairmentSettings::reorder, ImpairmentSettings::kCertain},
    {&ImpairmentSettings::reorder_us, ImpairmentSettings::kTimeMaxUs},
    {&ImpairmentSettings::duplicate, ImpairmentSettings::kCertain},
    {&ImpairmentSettings::corrupt, ImpairmentSettings::kCertain},
    {&ImpairmentSettings::rate_bits_per_second, ImpairmentSettings::kRateMax},
    {&ImpairmentSettings::queue_bytes, ImpairmentSettings::kQueueBytesMax},
    {&ImpairmentSettings::mtu, ImpairmentSettings::kMtuMax},
};
static_assert(std::size(kBounds) + 2 == ImpairmentSettings::kFields);

std::optional<uint64_t> whole(double number, uint64_t most) {
  if (!(number >= 0 && number <= static_cast<double>(most)) || number != std::floor(number)) {
    return std::nullopt;
  }
  return static_cast<uint64_t>(number);
}

// Both ends' numbers are mixed before the seed meets them, so that neighbours share nothing.
SeedMixer mixer_for(const ImpairmentSettings& settings, uint32_t from, uint32_t to) {
  SeedMixer pair(static_cast<uint64_t>(from) << 32 | to);
  return SeedMixer(pair.next() ^
                   (static_cast<uint64_t>(settings.seed_high) << 32 | settings.seed_low));
}

}  // namespace

std::optional<ImpairmentSettings> ImpairmentSettings::from(std::span<const double> numbers) {
  if (numbers.size() != kFields) return std::nullopt;
  ImpairmentSettings settings;
  const auto low = whole(numbers[0], UINT32_MAX);
  const auto high = whole(numbers[1], UINT32_MAX);
  if (!low || !high) return std::nullopt;
  settings.seed_low = static_cast<uint32_t>(*low);
  settings.seed_high = static_cast<uint32_t>(*high);
  for (size_t i = 0; i < std::size(kBounds); ++i) {
    const auto value = whole(numbers[i + 2], kBounds[i].most);
    if (!value) return std::nullopt;
    settings.*kBounds[i].field = *value;
  }
  const uint64_t rate = settings.rate_bits_per_second;
  if ((rate > 0 && rate < kRateMin) || settings.queue_bytes < kQueueBytesMin) return std::nullopt;
  return settings;
}

void ImpairmentSettings::to(std::span<double, kFields> numbers) const {
  numbers[0] = seed_low;
  numbers[1] = seed_high;
  for (size_t i = 0; i < std::size(kBounds); ++i) {
    numbers[i + 2] = static_cast<double>(this->*kBounds[i].field);
  }
}

bool ImpairmentSettings::active() const {
  return delay_us > 0 || jitter_us > 0 || loss > 0 || has_bursts() || reorder > 0 ||
         duplicate > 0 || corrupt > 0 || rate_bits_per_second > 0 || mtu > 0;
}

Impairment::Impairment(const ImpairmentSettings& settings, uint32_t from, uint32_t to)
    : Impairment(settings, mixer_for(settings, from, to)) {}

// The generators in the order of the members: the twin's too.
Impairment::Impairment(const ImpairmentSettings& settings, SeedMixer mixer)
    : settings_(settings),
      loss_(mixer),
      burst_(mixer),
      corrupt_(mixer),
      duplicate_(mixer),
      jitter_(mixer),
      reorder_(mixer) {}

void Impairment::change(const ImpairmentSettings& settings) {
  settings_ = settings;
  if (!settings.has_bursts()) line_is_bad_ = false;
  if (settings.rate_bits_per_second == 0) backlog_ = 0;
}

ImpairmentDecision Impairment::decide(uint64_t now_us, uint32_t length) {
  ImpairmentDecision decision;
  if (settings_.mtu > 0 && length > settings_.mtu) {
    decision.fate = PacketFate::kTooBig;
    return decision;
  }
  uint64_t left_us = now_us;
  if (settings_.rate_bits_per_second > 0) {
    left_us = pass_queue(now_us, length);
    if (left_us == ImpairmentDecision::kNever) {
      decision.fate = PacketFate::kQueueFull;
      return decision;
    }
  }
  const bool in_burst = settings_.has_bursts() && loses_in_burst();
  const bool lost = settings_.loss > 0 && loss_.chance(settings_.loss);
  if (lost || in_burst) {
    decision.fate = lost ? PacketFate::kLost : PacketFate::kLostInBurst;
    return decision;
  }
  if (settings_.corrupt > 0 && corrupt_.chance(settings_.corrupt) && length > 0) {
    decision.corrupt_bit = corrupt_.below(length * 8);
  }
  decision.at_us = arrival(left_us, decision.reordered);
  if (settings_.duplicate > 0 && duplicate_.chance(settings_.duplicate)) {
    decision.copy_at_us = arrival(left_us, decision.reordered);
  }
  return decision;
}

uint64_t Impairment::pass_queue(uint64_t now_us, uint32_t length) {
  const uint64_t rate = settings_.rate_bits_per_second;
  if (now_us > clock_us_) {
    const uint64_t elapsed_us = now_us - clock_us_;
    backlog_ = elapsed_us > backlog_ / rate ? 0 : backlog_ - elapsed_us * rate;
    clock_us_ = now_us;
  }
  // A line that is idle takes a packet of any length.
  const uint64_t with_it = backlog_ + length * kBacklogPerByte;
  if (backlog_ > 0 && with_it > settings_.queue_bytes * kBacklogPerByte) {
    return ImpairmentDecision::kNever;
  }
  backlog_ = with_it;
  return clock_us_ + (with_it + rate - 1) / rate;
}

bool Impairment::loses_in_burst() {
  const uint64_t turn = line_is_bad_ ? settings_.burst_leave : settings_.burst_enter;
  if (burst_.chance(turn)) line_is_bad_ = !line_is_bad_;
  return burst_.chance(line_is_bad_ ? settings_.burst_loss_bad : settings_.burst_loss_good);
}

uint64_t Impairment::arrival(uint64_t left_us, bool& reordered) {
  uint64_t at_us = left_us + settings_.delay_us;
  if (settings_.jitter_us > 0) {
    uint32_t word = jitter_.next();
    if (settings_.jitter_is_normal == 1) {
      word >>= 2;
      for (int i = 0; i < 3; ++i) word += jitter_.next() >> 2;
    }
    at_us += RandomStream::scale(word, static_cast<uint32_t>(settings_.jitter_us) + 1);
  }
  if (settings_.reorder > 0 && reorder_.chance(settings_.reorder)) {
    reordered = true;
    return at_us + settings_.reorder_us;
  }
  if (settings_.keeps_order == 1) {
    at_us = std::max(at_us, last_at_us_);
    last_at_us_ = at_us;
  }
  return at_us;
}

}  // namespace apo
