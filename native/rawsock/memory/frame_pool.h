// One thread's view of the shared frame pool; the layout is that of src/layer3-ip/pool.ts, word for
// word: see there for the map of the memory. A frame's `ref` is its byte offset divided by 2,048;
// ref 0 is never a frame.
//
// The shape is checked and copied when attaching, so later scribbling in the pool's header cannot
// lead outside it; refs that come from shared memory are checked before use.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "memory/prefetch.h"

namespace apo {

class FramePool {
 public:
  static constexpr uint32_t kMagic = 0x314f5041;  // "APO1"
  static constexpr size_t kSmallBytes = 2048;
  static constexpr size_t kLargeBytes = 65'536;

  // nullopt: not a pool, or one without that partition.
  static std::optional<FramePool> attach(std::span<uint32_t> words, uint32_t partition);

  // A frame of the own partition with a count of 1; 0 when there is none left. Owner thread only.
  [[nodiscard]] uint32_t allocate(bool large);

  // Takes one from a container's count; at 0 its frames go back to their partitions. False: not
  // such a ref, or it was free already.
  bool release(uint32_t ref);

  // The frame's bytes; empty when `ref` is not an allocated frame.
  [[nodiscard]] std::span<uint8_t> frame(uint32_t ref) const;

  // The bytes of a frame that `allocate` has just given.
  [[nodiscard]] uint8_t* own_frame(uint32_t ref) const {
    return bytes_ + static_cast<size_t>(ref) * kSmallBytes;
  }

  // The own partition's small frames, one after the other, and the first one's ref: for a link whose
  // device writes into them.
  struct SmallFrames {
    std::span<uint8_t> bytes;
    uint32_t first_ref = 0;
  };
  [[nodiscard]] SmallFrames own_small_frames() const;

  // Begins to fetch what a packet to be sent is completed and freed in: its first bytes, from `offset`
  // on, and its count.
  void prefetch(uint32_t ref, uint32_t offset) const {
    if (ref < first_ || ref >= first_ + partitions_ * stride_) return;
    prefetch_for_write(bytes_ + static_cast<size_t>(ref) * kSmallBytes +
                       (offset & (kSmallBytes - 1)));
    prefetch_for_write(words_ + meta(ref));
  }

  // Frames of one partition with a count above 0. Exact only while no thread allocates or frees.
  [[nodiscard]] uint32_t frames_in_use(uint32_t partition) const;

 private:
  FramePool() = default;

  [[nodiscard]] std::atomic_ref<uint32_t> word(size_t index) const {
    return std::atomic_ref<uint32_t>(words_[index]);
  }
  [[nodiscard]] size_t meta(uint32_t ref) const {
    return meta_start_ + static_cast<size_t>(ref) * 4;
  }
  [[nodiscard]] size_t control(uint32_t partition) const {
    return control_start_ + static_cast<size_t>(partition) * 64;
  }
  // Where a ref points, by its place alone.
  struct Place {
    bool valid = false;
    bool large = false;
    uint32_t partition = 0;
  };
  [[nodiscard]] Place place_of(uint32_t ref) const;
  void free_frame(uint32_t ref, const Place& place);
  [[nodiscard]] uint32_t pop_free(bool large);
  void take_returned(bool large);

  uint32_t* words_ = nullptr;
  uint8_t* bytes_ = nullptr;
  uint32_t partitions_ = 0;
  uint32_t small_ = 0;
  uint32_t large_ = 0;
  uint32_t first_ = 0;
  uint32_t stride_ = 0;
  size_t meta_start_ = 0;
  size_t control_start_ = 0;
  uint32_t own_ = 0;
  uint32_t pops_[2] = {};  // of small and large frames since others' returns were looked at
};

}  // namespace apo
