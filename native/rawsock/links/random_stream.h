// xoshiro128** (Blackman and Vigna), a small generator in 32-bit words, seeded by SplitMix64. Its
// twin in src/layer3-ip/random-stream.ts draws the same numbers. For simulation: nothing secret may
// come from it.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace apo {

// Turns a 64-bit seed into as many well-mixed words as are asked for.
class SeedMixer {
 public:
  explicit SeedMixer(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t word = state_;
    word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9;
    word = (word ^ word >> 27) * 0x94d049bb133111eb;
    return word ^ word >> 31;
  }

 private:
  uint64_t state_;
};

class RandomStream {
 public:
  // Two words of the mixer one after the other are never both zero, which the generator could not
  // leave.
  explicit RandomStream(SeedMixer& mixer) {
    const uint64_t first = mixer.next();
    const uint64_t second = mixer.next();
    state_ = {static_cast<uint32_t>(first), static_cast<uint32_t>(first >> 32),
              static_cast<uint32_t>(second), static_cast<uint32_t>(second >> 32)};
  }
  explicit RandomStream(const std::array<uint32_t, 4>& state) : state_(state) {}

  uint32_t next() {
    const uint32_t result = std::rotl(state_[1] * 5, 7) * 9;
    const uint32_t shifted = state_[1] << 9;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= shifted;
    state_[3] = std::rotl(state_[3], 11);
    return result;
  }

  // True with a probability of threshold / 2^32.
  bool chance(uint64_t threshold) { return next() < threshold; }

  // 0 to count - 1, for a count of at most 2^26: so that the twin's doubles hold the product.
  uint32_t below(uint32_t count) { return scale(next(), count); }
  static uint32_t scale(uint32_t word, uint32_t count) {
    return static_cast<uint32_t>(static_cast<uint64_t>(word >> 6) * count >> 26);
  }

 private:
  std::array<uint32_t, 4> state_;
};

}  // namespace apo
