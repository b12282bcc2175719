// Which shard a packet belongs to: a keyed hash of its 5-tuple, equal in both directions.
//
// HalfSipHash-1-3: made for keyed table hashing, and the TypeScript twin in src/layer3-ip/steer.ts
// needs no 64-bit arithmetic. The key is drawn per runtime, so nobody outside can aim at one worker.
// The two ends are put in order first, so both directions hash alike.
//
// Words hashed: lower end's address, higher end's address (1 or 4 words each, network order read as
// numbers), lower port << 16 | higher port, protocol. Echo messages count their identifier as both
// ports.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "wire/byte_order.h"

namespace apo {

struct SteerKey {
  uint32_t low = 0;
  uint32_t high = 0;
};

// Aumasson and Bernstein's SipHash on 32-bit words, with so many rounds a word and at the end.
template <int kWordRounds, int kFinalRounds>
class HalfSipHashOf {
 public:
  explicit HalfSipHashOf(SteerKey key)
      : v0_(key.low), v1_(key.high), v2_(0x6c796765 ^ key.low), v3_(0x74656462 ^ key.high) {}

  void add(uint32_t word) {
    v3_ ^= word;
    for (int i = 0; i < kWordRounds; ++i) round();
    v0_ ^= word;
    bytes_ += 4;
  }

  [[nodiscard]] uint32_t finish() {
    add(bytes_ << 24);
    v2_ ^= 0xff;
    for (int i = 0; i < kFinalRounds; ++i) round();
    return v1_ ^ v3_;
  }

 private:
  void round() {
    v0_ += v1_;
    v1_ = std::rotl(v1_, 5) ^ v0_;
    v0_ = std::rotl(v0_, 16);
    v2_ += v3_;
    v3_ = std::rotl(v3_, 8) ^ v2_;
    v0_ += v3_;
    v3_ = std::rotl(v3_, 7) ^ v0_;
    v2_ += v1_;
    v1_ = std::rotl(v1_, 13) ^ v2_;
    v2_ = std::rotl(v2_, 16);
  }

  uint32_t v0_, v1_, v2_, v3_;
  uint32_t bytes_ = 0;
};

// What others may see of a hash is drawn with the full number of rounds.
using HalfSipHash = HalfSipHashOf<2, 4>;
// For tables whose hashes nobody sees.
using TableHash = HalfSipHashOf<1, 3>;

inline constexpr uint32_t kShards = 16;

inline uint32_t steer_hash(SteerKey key, const uint8_t* source, const uint8_t* destination,
                           size_t address_bytes, uint16_t source_port, uint16_t destination_port,
                           uint8_t protocol) {
  int order = 0;
  for (size_t i = 0; i < address_bytes && order == 0; i += 4) {
    const uint32_t from = wire::load32(source + i);
    const uint32_t to = wire::load32(destination + i);
    if (from != to) order = from < to ? -1 : 1;
  }
  if (order == 0) order = source_port < destination_port ? -1 : 1;
  const uint8_t* low = order < 0 ? source : destination;
  const uint8_t* high = order < 0 ? destination : source;
  const uint32_t low_port = order < 0 ? source_port : destination_port;
  const uint32_t high_port = order < 0 ? destination_port : source_port;
  TableHash hash(key);
  for (size_t i = 0; i < address_bytes; i += 4) hash.add(wire::load32(low + i));
  for (size_t i = 0; i < address_bytes; i += 4) hash.add(wire::load32(high + i));
  hash.add(low_port << 16 | high_port);
  hash.add(protocol);
  return hash.finish();
}

// The hash's top four bits.
inline uint32_t shard_of(uint32_t hash) { return hash >> 28; }

}  // namespace apo
