// The ring and the frame pool between two threads, for the thread sanitizer above all: order and
// content of a million descriptors with sleeping and waking, frames that are freed by the other
// thread, and memory that lies.
#include <thread>
#include <vector>

#include "check.h"
#include "memory/doorbell.h"
#include "memory/frame_pool.h"
#include "memory/ring.h"
#include "shared_memory.h"

namespace {

using namespace apo;
using namespace apo::test;

void ring_keeps_order_across_threads() {
  constexpr uint32_t kCount = 300'000;
  auto words = ring_memory(64);
  uint32_t bell_word = 0;
  const RingMemory memory = *RingMemory::attach(words);
  const Doorbell bell(&bell_word);
  std::thread producer([&] {
    RingProducer out(memory);
    for (uint32_t i = 0; i < kCount;) {
      RingSlot slot;
      slot.fill(i);
      if (out.push(slot)) ++i;
      // Batches of every size, and a full ring now and then.
      if ((i % 7 == 0 || out.is_full() || i == kCount) && out.publish()) bell.ring();
    }
  });
  RingConsumer in(memory);
  for (uint32_t next = 0; next < kCount;) {
    RingSlot slot;
    while (in.take(slot)) {
      for (const uint32_t word : slot) CHECK(word == next);
      ++next;
      if (next % 5 == 0) in.release();
    }
    in.release();
    const uint32_t seen = bell.read();
    if (next < kCount && in.sleep()) bell.wait(seen, -1);
    in.wake();
  }
  producer.join();
  CHECK(in.corrupt() == 0);
}

void lying_indices_do_no_harm() {
  auto words = ring_memory(16);
  const RingMemory memory = *RingMemory::attach(words);
  RingProducer out(memory);
  RingConsumer in(memory);
  words[kRingHeadWord] = 12345;
  RingSlot slot{};
  CHECK(!in.take(slot) && in.corrupt() == 1);
  CHECK(in.sleep());
  words[kRingHeadWord] = 0;
  for (int i = 0; i < 16; ++i) CHECK(out.push(slot));
  words[kRingTailWord] = 99;
  CHECK(!out.push(slot) && out.corrupt() == 1);
  CHECK(!RingMemory::attach(std::span(words).first(60)));
  CHECK(!RingMemory::attach(std::span(words).first(kRingFirstSlotWord + 24)));
}

void frames_come_back_from_another_thread() {
  auto words = pool_memory(2, 32, 4);
  auto ring = ring_memory(16);
  const RingMemory memory = *RingMemory::attach(ring);
  constexpr uint32_t kRounds = 100'000;
  std::thread receiver([&] {
    FramePool pool = *FramePool::attach(words, 1);
    RingConsumer in(memory);
    for (uint32_t got = 0; got < kRounds;) {
      RingSlot slot;
      while (in.take(slot)) {
        const auto bytes = pool.frame(slot[0]);
        CHECK(bytes.size() == (slot[1] != 0 ? FramePool::kLargeBytes : FramePool::kSmallBytes));
        CHECK(bytes[0] == static_cast<uint8_t>(got) &&
              bytes[bytes.size() - 1] == static_cast<uint8_t>(got));
        CHECK(pool.release(slot[0]));
        ++got;
      }
      in.release();
    }
  });
  FramePool pool = *FramePool::attach(words, 0);
  RingProducer out(memory);
  for (uint32_t sent = 0; sent < kRounds;) {
    const bool large = sent % 5 == 0;
    const uint32_t ref = out.is_full() ? 0 : pool.allocate(large);
    if (ref == 0) continue;
    const auto bytes = pool.frame(ref);
    bytes[0] = bytes[bytes.size() - 1] = static_cast<uint8_t>(sent);
    CHECK(out.push({ref, large}));
    (void)out.publish();
    ++sent;
  }
  receiver.join();
  CHECK(pool.frames_in_use(0) == 0 && pool.frames_in_use(1) == 0);
}

void pool_gives_every_frame_once() {
  auto words = pool_memory(3, 32, 4);
  FramePool pool = *FramePool::attach(words, 1);
  for (int round = 0; round < 3; ++round) {
    std::vector<uint32_t> refs;
    while (const uint32_t ref = pool.allocate(false)) refs.push_back(ref);
    while (const uint32_t ref = pool.allocate(true)) refs.push_back(ref);
    CHECK(refs.size() == 36 && pool.frames_in_use(1) == 36);
    for (size_t i = 0; i < refs.size(); ++i) pool.frame(refs[i])[0] = static_cast<uint8_t>(i);
    for (size_t i = 0; i < refs.size(); ++i) CHECK(pool.frame(refs[i])[0] == i);
    for (const uint32_t ref : refs) CHECK(pool.release(ref));
    for (const uint32_t ref : refs) CHECK(!pool.release(ref) && pool.frame(ref).empty());
    CHECK(pool.frames_in_use(1) == 0);
  }
}

// What another thread has given back is used again before frames that have rested: it is in a cache.
void returned_frames_are_used_soon() {
  auto words = pool_memory(2, 256, 32);
  FramePool owner = *FramePool::attach(words, 0);
  FramePool other = *FramePool::attach(words, 1);
  for (const bool large : {false, true}) {
    const uint32_t most = large ? 32 : 256;
    std::vector<uint32_t> refs;
    while (const uint32_t ref = owner.allocate(large)) refs.push_back(ref);
    CHECK(refs.size() == most);
    for (const uint32_t ref : refs) CHECK(owner.release(ref));
    const uint32_t hot = owner.allocate(large);
    CHECK(other.release(hot));
    uint32_t taken = 0;
    std::vector<uint32_t> held;
    while (held.empty() || held.back() != hot) {
      const uint32_t ref = owner.allocate(large);
      CHECK(ref != 0 && ++taken <= most / 2);
      held.push_back(ref);
    }
    for (const uint32_t ref : held) CHECK(owner.release(ref));
    // And none is lost or given twice by it.
    refs.clear();
    while (const uint32_t ref = owner.allocate(large)) refs.push_back(ref);
    CHECK(refs.size() == most);
    for (const uint32_t ref : refs) CHECK(other.release(ref));
  }
  CHECK(owner.frames_in_use(0) == 0);
}

void lying_pools_do_no_harm() {
  auto words = pool_memory(2, 32, 4);
  CHECK(!FramePool::attach(words, 2));
  for (size_t word = 0; word < 7; ++word) {
    auto bad = words;
    bad[word] = 0xfffffff0;
    CHECK(!FramePool::attach(bad, 0));
  }
  CHECK(!FramePool::attach(std::span(words).first(6), 0));
  CHECK(!FramePool::attach(std::span(words).first(words.size() - 1), 0));
  FramePool pool = *FramePool::attach(words, 0);
  for (const uint32_t ref : {0u, 1u, 0xffffffffu, words[4] + 33, words[4] - 1}) {
    CHECK(!pool.release(ref) && pool.frame(ref).empty());
  }
  // Lists of returned frames that lead outside, or to themselves.
  for (const bool cycle : {false, true}) {
    auto bad = pool_memory(2, 32, 4);
    FramePool owner = *FramePool::attach(bad, 0);
    FramePool other = *FramePool::attach(bad, 1);
    const uint32_t returned = owner.allocate(false);
    CHECK(other.release(returned));
    bad[bad[5] + 4 * size_t{returned} + 1] = cycle ? returned : 0xffffff;
    int taken = 0;
    while (owner.allocate(false) != 0) CHECK(++taken <= 32);
    CHECK(taken >= 31);
  }
  const uint32_t ref = pool.allocate(false);
  CHECK(pool.release(ref));
  words[words[6]] = 0xffffff;                   // the head of the free list
  const uint32_t fresh = pool.allocate(false);  // the list is lost, the memory is not
  CHECK(fresh != 0 && fresh != ref && pool.frame(fresh).size() == FramePool::kSmallBytes);
}

}  // namespace

int main() {
  ring_keeps_order_across_threads();
  lying_indices_do_no_harm();
  pool_gives_every_frame_once();
  returned_frames_are_used_soon();
  frames_come_back_from_another_thread();
  lying_pools_do_no_harm();
  return 0;
}
