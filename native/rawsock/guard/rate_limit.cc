#include "guard/rate_limit.h"

#include <algorithm>
#include <atomic>
#include <bit>

namespace apo {
namespace {

// Tries against other threads for one bucket; whoever loses them all lets its packet pass.
constexpr int kTriesMax = 8;

uint64_t first_bits(uint64_t word, unsigned bits) {
  if (bits == 0) return 0;
  return bits >= 64 ? word : word & ~uint64_t{0} << (64 - bits);
}

uint64_t load64(const uint8_t* at) {
  return uint64_t{wire::load32(at)} << 32 | wire::load32(at + 4);
}

}  // namespace

RateTable::RateTable(HashKey key) : key_(key), sets_(new Set[kSets]()) {
  static_assert(kSets * sizeof(Set) == kBytes);
}

uint64_t RateTable::hash_of(const RatePace& pace, const PacketSource& source) const {
  if (source.version == 4) {
    const uint64_t address = uint64_t{wire::load32(source.address)} << 32;
    return source_hash(key_, 4, first_bits(address, pace.prefix_bits4_) >> 32, 0);
  }
  const unsigned bits = pace.prefix_bits6_;
  return source_hash(key_, 6, first_bits(load64(source.address), std::min(bits, 64u)),
                     first_bits(load64(source.address + 8), bits > 64 ? bits - 64 : 0));
}

bool RateTable::take(const RatePace& pace, const PacketSource& source, uint64_t now_us,
                     bool shared) {
  const uint64_t hash = hash_of(pace, source);
  Set& set = sets_[hash % kSets];
  const uint64_t tag = hash | 1;
  // The set's place uses the lower bits, of which the tag gives up one: never 0.
  size_t chosen = 0;
  uint64_t earliest = UINT64_MAX;
  bool found = false;
  for (size_t way = 0; way < kWays && !found; ++way) {
    found = std::atomic_ref(set.tags[way]).load(std::memory_order_relaxed) == tag;
    const uint64_t full_at = std::atomic_ref(set.full_at[way]).load(std::memory_order_relaxed);
    if (found || full_at < earliest) {
      chosen = way;
      earliest = full_at;
    }
  }
  // Two threads that do this at once meet in one bucket, or one source has two for a while.
  if (!found) std::atomic_ref(set.tags[chosen]).store(tag, std::memory_order_relaxed);

  const std::atomic_ref bucket(set.full_at[chosen]);
  const uint64_t now = now_us << RatePace::kFractionBits;
  uint64_t full_at = bucket.load(std::memory_order_relaxed);
  for (int tries = 0; tries < kTriesMax; ++tries) {
    const uint64_t next = std::max(full_at, now) + pace.interval_;
    if (next > now + pace.ahead_max_) {
      // A time further ahead than this limit allows is an older limit's, or another clock's.
      if (full_at > now + pace.ahead_max_) {
        bucket.store(now + pace.ahead_max_, std::memory_order_relaxed);
      }
      return false;
    }
    if (!shared) {
      bucket.store(next, std::memory_order_relaxed);
      return true;
    }
    if (bucket.compare_exchange_weak(full_at, next, std::memory_order_relaxed)) return true;
  }
  return true;
}

}  // namespace apo
