#include "memory/frame_pool.h"

namespace apo {
namespace {

constexpr uint32_t kRefsOfLarge = FramePool::kLargeBytes / FramePool::kSmallBytes;
constexpr size_t kHeaderWords = 7;
constexpr size_t kControlWords = 64;
constexpr size_t kMetaWords = 4;

// Within a partition's controls.
constexpr size_t kSmallHead = 0;
constexpr size_t kSmallUsed = 1;
constexpr size_t kLargeHead = 2;
constexpr size_t kLargeUsed = 3;
constexpr size_t kSmallReturned = 16;
constexpr size_t kLargeReturned = 32;

// Within a frame's metadata.
constexpr size_t kCount = 0;
constexpr size_t kNext = 1;
constexpr size_t kHolders = 2;
constexpr size_t kBytes = 3;

// Frames taken before the list of returned ones is looked at again: its line is the other threads'.
constexpr uint32_t kSmallPops = 64;
constexpr uint32_t kLargePops = 4;

constexpr auto kRelaxed = std::memory_order_relaxed;

}  // namespace

std::optional<FramePool> FramePool::attach(std::span<uint32_t> words, uint32_t partition) {
  if (words.size() < kHeaderWords || words[0] != kMagic) return std::nullopt;
  FramePool pool;
  pool.words_ = words.data();
  pool.bytes_ = reinterpret_cast<uint8_t*>(words.data());
  pool.partitions_ = words[1];
  pool.small_ = words[2];
  pool.large_ = words[3];
  pool.first_ = words[4];
  pool.meta_start_ = words[5];
  pool.control_start_ = words[6];
  pool.own_ = partition;
  // 64-bit arithmetic: 32-bit factors cannot overflow it before they are compared.
  const uint64_t stride = pool.small_ + uint64_t{pool.large_} * kRefsOfLarge;
  const uint64_t total_words = words.size();
  if (pool.partitions_ == 0 || partition >= pool.partitions_ || stride == 0 ||
      stride > total_words || pool.partitions_ > total_words) {
    return std::nullopt;
  }
  const uint64_t end_ref = pool.first_ + pool.partitions_ * stride;
  const uint64_t control_end = pool.control_start_ + uint64_t{pool.partitions_} * kControlWords;
  const uint64_t meta_end = pool.meta_start_ + end_ref * kMetaWords;
  const uint64_t first_frame_word = uint64_t{pool.first_} * (kSmallBytes / 4);
  const bool fits = end_ref * (kSmallBytes / 4) <= total_words && pool.first_ > 0 &&
                    pool.control_start_ >= kHeaderWords && control_end <= pool.meta_start_ &&
                    meta_end <= first_frame_word;
  if (!fits) return std::nullopt;
  pool.stride_ = static_cast<uint32_t>(stride);
  return pool;
}

FramePool::Place FramePool::place_of(uint32_t ref) const {
  if (ref < first_) return {};
  const uint32_t partition = (ref - first_) / stride_;
  if (partition >= partitions_) return {};
  const uint32_t index = (ref - first_) % stride_;
  if (index < small_) return {true, false, partition};
  if ((index - small_) % kRefsOfLarge != 0) return {};
  return {true, true, partition};
}

// Puts what others have returned before the partition's own free frames: it is in a cache still, and
// those may not have been touched for long. The chain's shape is nobody's to believe.
void FramePool::take_returned(bool large) {
  auto returned = word(control(own_) + (large ? kLargeReturned : kSmallReturned));
  if (returned.load(kRelaxed) == 0) return;
  const uint32_t first = returned.exchange(0, std::memory_order_acquire);
  uint32_t last = 0;
  uint64_t left = large ? large_ : small_;
  for (uint32_t ref = first; ref != 0 && left > 0; --left) {
    const Place place = place_of(ref);
    if (!place.valid || place.large != large || place.partition != own_) break;
    last = ref;
    ref = word(meta(ref) + kNext).load(kRelaxed);
  }
  if (last == 0) return;
  auto head = word(control(own_) + (large ? kLargeHead : kSmallHead));
  word(meta(last) + kNext).store(head.load(kRelaxed), kRelaxed);
  head.store(first, kRelaxed);
}

uint32_t FramePool::pop_free(bool large) {
  const size_t list = control(own_) + (large ? kLargeHead : kSmallHead);
  uint32_t& pops = pops_[large ? 1 : 0];
  if (word(list).load(kRelaxed) == 0 || ++pops >= (large ? kLargePops : kSmallPops)) {
    pops = 0;
    take_returned(large);
  }
  const uint32_t ref = word(list).load(kRelaxed);
  if (ref == 0) return 0;
  const Place place = place_of(ref);
  if (!place.valid || place.large != large || place.partition != own_) {
    word(list).store(0, kRelaxed);  // somebody scribbled over the list: lose it, not the memory
    return 0;
  }
  word(list).store(word(meta(ref) + kNext).load(kRelaxed), kRelaxed);
  return ref;
}

uint32_t FramePool::allocate(bool large) {
  uint32_t ref = pop_free(large);
  if (ref == 0) {
    const size_t used_word = control(own_) + (large ? kLargeUsed : kSmallUsed);
    const uint32_t used = word(used_word).load(kRelaxed);
    if (used >= (large ? large_ : small_)) return 0;
    word(used_word).store(used + 1, kRelaxed);
    ref = first_ + own_ * stride_ + (large ? small_ + used * kRefsOfLarge : used);
  }
  const size_t at = meta(ref);
  word(at + kNext).store(0, kRelaxed);
  word(at + kHolders).store(0, kRelaxed);
  word(at + kBytes).store(static_cast<uint32_t>(large ? kLargeBytes : kSmallBytes), kRelaxed);
  word(at + kCount).store(1, std::memory_order_release);
  return ref;
}

bool FramePool::release(uint32_t ref) {
  if (!place_of(ref).valid) return false;
  auto count = word(meta(ref) + kCount);
  uint32_t seen = count.load(std::memory_order_acquire);
  do {
    if (seen == 0) return false;
  } while (!count.compare_exchange_weak(seen, seen - 1, std::memory_order_acq_rel));
  if (seen != 1) return true;
  // A chain cannot be longer than there are frames; a scribbled one ends there.
  uint64_t left = uint64_t{partitions_} * stride_;
  for (uint32_t frame = ref; frame != 0 && left > 0; --left) {
    const Place place = place_of(frame);
    if (!place.valid) return false;
    const uint32_t next = word(meta(frame) + kNext).load(kRelaxed);
    free_frame(frame, place);
    frame = next;
  }
  return true;
}

void FramePool::free_frame(uint32_t ref, const Place& place) {
  word(meta(ref) + kCount).store(0, kRelaxed);
  auto next = word(meta(ref) + kNext);
  if (place.partition == own_) {
    auto head = word(control(own_) + (place.large ? kLargeHead : kSmallHead));
    next.store(head.load(kRelaxed), kRelaxed);
    head.store(ref, kRelaxed);
    return;
  }
  auto returned = word(control(place.partition) + (place.large ? kLargeReturned : kSmallReturned));
  uint32_t head = returned.load(kRelaxed);
  do {
    next.store(head, kRelaxed);
  } while (!returned.compare_exchange_weak(head, ref, std::memory_order_release, kRelaxed));
}

std::span<uint8_t> FramePool::frame(uint32_t ref) const {
  const Place place = place_of(ref);
  if (!place.valid || word(meta(ref) + kCount).load(std::memory_order_acquire) == 0) return {};
  return {bytes_ + static_cast<size_t>(ref) * kSmallBytes, place.large ? kLargeBytes : kSmallBytes};
}

FramePool::SmallFrames FramePool::own_small_frames() const {
  const uint32_t first_ref = first_ + own_ * stride_;
  return {{own_frame(first_ref), small_ * kSmallBytes}, first_ref};
}

uint32_t FramePool::frames_in_use(uint32_t partition) const {
  if (partition >= partitions_) return 0;
  uint32_t used = 0;
  const uint32_t start = first_ + partition * stride_;
  const uint32_t smalls = word(control(partition) + kSmallUsed).load(kRelaxed);
  const uint32_t larges = word(control(partition) + kLargeUsed).load(kRelaxed);
  for (uint32_t i = 0; i < smalls && i < small_; ++i) {
    used += word(meta(start + i) + kCount).load(kRelaxed) != 0;
  }
  for (uint32_t i = 0; i < larges && i < large_; ++i) {
    used += word(meta(start + small_ + i * kRefsOfLarge) + kCount).load(kRelaxed) != 0;
  }
  return used;
}

}  // namespace apo
