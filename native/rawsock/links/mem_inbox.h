// The inbox of an endpoint of the `mem` wire: a byte ring of whole packets, with many producers who
// take turns (their lock is the endpoint's matter) and one consumer, who needs none.
//
// A packet may be due later than it is put in. Then it stays where it is until the consumer has done
// with it: packets are freed in the ring's order, however they are taken. So what is on its way over a
// slow line takes room here, and is bounded with the rest.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "wire/packet_descriptor.h"

namespace apo {

// Each record starts at a multiple of 16 and is a 16-byte header (kSkip for the length where the next
// record is at the ring's start) and the packet, in one piece.
class MemInbox {
 public:
  // `bytes` is rounded up to a power of two.
  explicit MemInbox(size_t bytes);

  // Producers, one at a time. Where the packet's copy is, which may be changed until `publish`; null:
  // no room. The consumer sees it after `publish`. `due_us` 0: at once.
  [[nodiscard]] uint8_t* push(std::span<const uint8_t> packet, const Offload& offload,
                              uint64_t due_us);
  // True: the consumer sleeps, and it is the caller who must wake it.
  [[nodiscard]] bool publish();

  // Consumer.
  struct Taken {
    std::span<const uint8_t> bytes;
    Offload offload;
  };
  // The next packet that is due: what was held back first. The view is valid until `release`. False:
  // there is none. Packets that are not due are held back on the way, unless `all` is due.
  [[nodiscard]] bool take(Taken& taken, bool all);
  // The packets taken so far are done with.
  void release();
  // When the next of those held back is due; kNever: none is.
  [[nodiscard]] uint64_t due_us() const { return held_.empty() ? kNever : held_.front().due_us; }
  [[nodiscard]] bool prepare_sleep();
  void finish_sleep() { sleeping_.store(0, std::memory_order_seq_cst); }

  static constexpr uint64_t kNever = UINT64_MAX;

 private:
  static constexpr uint32_t kSkip = 0xffffffff;
  static constexpr uint32_t kDone = 0x80000000;  // of a length: behind a packet that is held back
  struct Record {
    uint32_t length = 0;
    Offload offload;
    uint64_t due_us = 0;
  };
  static constexpr size_t kHeaderBytes = 16;
  static_assert(sizeof(Record) == kHeaderBytes);
  struct Held {
    uint64_t due_us;
    uint64_t position;

    // For a heap with the earliest at the top; of those at one time, the one put in first.
    [[nodiscard]] bool operator<(const Held& other) const {
      return due_us != other.due_us ? due_us > other.due_us : position > other.position;
    }
  };

  [[nodiscard]] uint8_t* at(uint64_t position) {
    return memory_.get() + (position & (capacity_ - 1));
  }
  [[nodiscard]] Record record_at(uint64_t position);
  void put_record(uint64_t position, const Record& record);
  [[nodiscard]] bool take_held(Taken& taken, bool all);
  void hold(uint64_t position, uint64_t due_us);
  void mark_done(uint64_t position, Record record);

  std::unique_ptr<uint8_t[]> memory_;
  const size_t capacity_;
  // Positions are free-running; each side's own ones stand apart from the other's.
  alignas(64) std::atomic<uint64_t> head_{0};
  uint64_t writing_ = 0;
  alignas(64) std::atomic<uint64_t> tail_{0};
  uint64_t reading_ = 0;
  uint64_t now_us_ = 0;     // read once between two releases
  uint64_t freeing_ = 0;    // all before it is done with; while `marking_`
  bool marking_ = false;    // a packet before `reading_` is held back, or was when last released
  std::vector<Held> held_;  // a heap
  alignas(64) std::atomic<uint32_t> sleeping_{0};
};

}  // namespace apo
