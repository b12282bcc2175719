#include "links/mem_inbox.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "util/clock.h"

namespace apo {
namespace {

constexpr size_t kRecordAlign = 16;

constexpr size_t align_up(size_t bytes) { return (bytes + kRecordAlign - 1) & ~(kRecordAlign - 1); }

}  // namespace

MemInbox::MemInbox(size_t bytes)
    : memory_(new uint8_t[std::bit_ceil(bytes)]), capacity_(std::bit_ceil(bytes)) {}

MemInbox::Record MemInbox::record_at(uint64_t position) {
  Record record;
  std::memcpy(&record, at(position), sizeof record);
  return record;
}

void MemInbox::put_record(uint64_t position, const Record& record) {
  std::memcpy(at(position), &record, sizeof record);
}

uint8_t* MemInbox::push(std::span<const uint8_t> packet, const Offload& offload, uint64_t due_us) {
  const size_t record = kHeaderBytes + align_up(packet.size());
  const size_t to_end = capacity_ - (writing_ & (capacity_ - 1));
  const size_t skipped = record > to_end ? to_end : 0;
  const uint64_t used = writing_ - tail_.load(std::memory_order_acquire);
  if (used + skipped + record > capacity_) return nullptr;
  if (skipped > 0) {
    put_record(writing_, {kSkip, {}, 0});
    writing_ += skipped;
  }
  put_record(writing_, {static_cast<uint32_t>(packet.size()), offload, due_us});
  uint8_t* copy = at(writing_) + kHeaderBytes;
  std::memcpy(copy, packet.data(), packet.size());
  writing_ += record;
  return copy;
}

bool MemInbox::publish() {
  head_.store(writing_, std::memory_order_seq_cst);
  if (sleeping_.load(std::memory_order_seq_cst) == 0) return false;
  return sleeping_.exchange(0, std::memory_order_seq_cst) == 1;
}

bool MemInbox::take(Taken& taken, bool all) {
  if (!held_.empty() && take_held(taken, all)) return true;
  while (reading_ != head_.load(std::memory_order_acquire)) {
    const uint64_t position = reading_;
    const Record record = record_at(position);
    if (record.length == kSkip) {
      reading_ += capacity_ - (position & (capacity_ - 1));
      continue;
    }
    reading_ += kHeaderBytes + align_up(record.length);
    if (record.due_us > 0 && !all) {
      if (now_us_ == 0) now_us_ = clock_us();
      if (record.due_us > now_us_) {
        hold(position, record.due_us);
        continue;
      }
    }
    if (marking_) mark_done(position, record);
    taken = {{at(position) + kHeaderBytes, record.length}, record.offload};
    return true;
  }
  return false;
}

bool MemInbox::take_held(Taken& taken, bool all) {
  if (now_us_ == 0) now_us_ = clock_us();
  const Held next = held_.front();
  if (next.due_us > now_us_ && !all) return false;
  std::ranges::pop_heap(held_, std::less<>());
  held_.pop_back();
  const Record record = record_at(next.position);
  mark_done(next.position, record);
  taken = {{at(next.position) + kHeaderBytes, record.length}, record.offload};
  return true;
}

void MemInbox::hold(uint64_t position, uint64_t due_us) {
  if (!marking_) {
    marking_ = true;
    freeing_ = position;
  }
  held_.push_back({due_us, position});
  std::ranges::push_heap(held_, std::less<>());
}

void MemInbox::mark_done(uint64_t position, Record record) {
  record.length |= kDone;
  put_record(position, record);
}

void MemInbox::release() {
  now_us_ = 0;
  if (!marking_) {
    tail_.store(reading_, std::memory_order_release);
    return;
  }
  while (freeing_ != reading_) {
    const Record record = record_at(freeing_);
    if (record.length == kSkip) {
      freeing_ += capacity_ - (freeing_ & (capacity_ - 1));
    } else if ((record.length & kDone) != 0) {
      freeing_ += kHeaderBytes + align_up(record.length & ~kDone);
    } else {
      break;
    }
  }
  marking_ = freeing_ != reading_;
  tail_.store(freeing_, std::memory_order_release);
}

bool MemInbox::prepare_sleep() {
  if (!held_.empty() && held_.front().due_us <= clock_us()) return false;
  sleeping_.store(1, std::memory_order_seq_cst);
  if (head_.load(std::memory_order_seq_cst) == reading_) return true;
  finish_sleep();
  return false;
}

}  // namespace apo
