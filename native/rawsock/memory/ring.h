// The two ends of a descriptor ring in shared memory: one producer thread, one consumer thread, no
// lock. The layout and the rules of waking are those of src/layer3-ip/ring.ts, word for word:
//
//   word 0 head (published), word 16 tail (consumed), word 32 sleeping, descriptor i at word 48 + 8
//   * (i & mask)
//
// The other end may be JavaScript, so no index is believed: one that cannot be is taken as an empty
// (or full) ring and counted by `corrupt()`, and slots are always masked.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "memory/prefetch.h"

namespace apo {

inline constexpr size_t kRingHeadWord = 0;
inline constexpr size_t kRingTailWord = 16;
inline constexpr size_t kRingSleepingWord = 32;
inline constexpr size_t kRingFirstSlotWord = 48;
inline constexpr size_t kRingSlotWords = 8;

// How far ahead a producer fetches: eight slots are four lines.
inline constexpr uint32_t kSlotsAhead = 8;

using RingSlot = std::array<uint32_t, kRingSlotWords>;

// A ring's memory, checked once.
class RingMemory {
 public:
  static std::optional<RingMemory> attach(std::span<uint32_t> words) {
    if (words.size() < kRingFirstSlotWord + 2 * kRingSlotWords) return std::nullopt;
    const size_t slot_words = words.size() - kRingFirstSlotWord;
    const size_t capacity = slot_words / kRingSlotWords;
    if (slot_words % kRingSlotWords != 0 || !std::has_single_bit(capacity) || capacity > 1u << 24) {
      return std::nullopt;
    }
    return RingMemory(words.data(), static_cast<uint32_t>(capacity));
  }

  [[nodiscard]] uint32_t capacity() const { return capacity_; }
  [[nodiscard]] std::atomic_ref<uint32_t> head() const { return word(kRingHeadWord); }
  [[nodiscard]] std::atomic_ref<uint32_t> tail() const { return word(kRingTailWord); }
  [[nodiscard]] std::atomic_ref<uint32_t> sleeping() const { return word(kRingSleepingWord); }
  [[nodiscard]] uint32_t* slot(uint32_t index) const {
    return words_ + kRingFirstSlotWord +
           kRingSlotWords * static_cast<size_t>(index & (capacity_ - 1));
  }

 private:
  RingMemory(uint32_t* words, uint32_t capacity) : words_(words), capacity_(capacity) {}
  [[nodiscard]] std::atomic_ref<uint32_t> word(size_t index) const {
    return std::atomic_ref<uint32_t>(words_[index]);
  }

  uint32_t* words_;
  uint32_t capacity_;
};

class RingProducer {
 public:
  explicit RingProducer(RingMemory memory)
      : memory_(memory),
        head_(memory.head().load(std::memory_order_acquire)),
        published_(head_),
        known_tail_(memory.tail().load(std::memory_order_acquire)) {}

  // False: the ring is full. The consumer sees the descriptor after the next `publish`.
  [[nodiscard]] bool push(const RingSlot& slot) {
    if (is_full()) return false;
    // The consumer has read these lines last: the ones ahead are taken from it in time.
    prefetch_for_write(memory_.slot(head_ + kSlotsAhead));
    uint32_t* words = memory_.slot(head_);
    for (size_t i = 0; i < kRingSlotWords; ++i) words[i] = slot[i];
    ++head_;
    return true;
  }

  // Looks at the shared index only when the ring seems full.
  [[nodiscard]] bool is_full() {
    if (head_ - known_tail_ < memory_.capacity()) return false;
    known_tail_ = memory_.tail().load(std::memory_order_acquire);
    const uint32_t used = head_ - known_tail_;
    if (used > memory_.capacity()) ++corrupt_;
    return used >= memory_.capacity();
  }

  // Hands over everything pushed so far. True: the consumer sleeps, and it is the caller who must
  // wake it.
  [[nodiscard]] bool publish() {
    if (published_ == head_) return false;
    published_ = head_;
    memory_.head().store(head_, std::memory_order_seq_cst);
    if (memory_.sleeping().load(std::memory_order_seq_cst) == 0) return false;
    return memory_.sleeping().exchange(0, std::memory_order_seq_cst) == 1;
  }

  [[nodiscard]] uint32_t unpublished() const { return head_ - published_; }
  [[nodiscard]] uint64_t corrupt() const { return corrupt_; }

 private:
  RingMemory memory_;
  uint32_t head_;
  uint32_t published_;
  uint32_t known_tail_;
  uint64_t corrupt_ = 0;
};

class RingConsumer {
 public:
  explicit RingConsumer(RingMemory memory)
      : memory_(memory), tail_(memory.tail().load(std::memory_order_acquire)), known_head_(tail_) {}

  // Copies the next descriptor out: what the producer's side does to the slot later cannot change
  // it.
  [[nodiscard]] bool take(RingSlot& slot) {
    if (tail_ == known_head_ && !refresh()) return false;
    const uint32_t* words = memory_.slot(tail_);
    for (size_t i = 0; i < kRingSlotWords; ++i) slot[i] = words[i];
    ++tail_;
    return true;
  }

  // Gives the slots of all descriptors taken back to the producer.
  void release() { memory_.tail().store(tail_, std::memory_order_release); }

  // Is there something to take? Looks at the shared index when it must.
  [[nodiscard]] bool has_more() { return tail_ != known_head_ || refresh(); }

  // Says that the consumer will wait. False: something has come meanwhile.
  [[nodiscard]] bool sleep() {
    memory_.sleeping().store(1, std::memory_order_seq_cst);
    const uint32_t head = memory_.head().load(std::memory_order_seq_cst);
    // An index that cannot be is no reason to stay awake for ever.
    if (head == tail_ || head - tail_ > memory_.capacity()) return true;
    wake();
    return false;
  }
  void wake() { memory_.sleeping().store(0, std::memory_order_seq_cst); }

  [[nodiscard]] uint64_t corrupt() const { return corrupt_; }

 private:
  bool refresh() {
    const uint32_t head = memory_.head().load(std::memory_order_acquire);
    if (head - tail_ > memory_.capacity()) {
      ++corrupt_;
      return false;
    }
    known_head_ = head;
    return tail_ != known_head_;
  }

  RingMemory memory_;
  uint32_t tail_;
  uint32_t known_head_;
  uint64_t corrupt_ = 0;
};

}  // namespace apo
