// What a track has carried since its last key frame: packets back to back in blocks, and an index
// of them.
//
// A segment starts at a key frame (or, where the codec has none or the cache is full, anywhere) and
// knows the one that follows it. Readers that catch up hold the segment they are in by shared_ptr,
// and the track holds its newest two, so a reader that stands still keeps one segment alive and
// never a growing chain of them: the link is weak. Only the engine's thread appends or reads the
// index; another thread may hold a segment, and that is all.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

namespace apo {

struct LoggedPacket {
  const uint8_t* data;
  uint32_t bytes;
  uint32_t rtp_time;
  uint32_t payload_bytes;
  uint16_t seq;
  bool marker;

  [[nodiscard]] std::span<const uint8_t> span() const { return {data, bytes}; }
};

class LogSegment {
 public:
  LogSegment(bool key, size_t block_bytes) : key_(key), block_bytes_(block_bytes) {}

  // Copies a packet in; packets of one block lie back to back, so that a frame is one piece of
  // memory for GSO.
  const LoggedPacket& append(std::span<const uint8_t> bytes, LoggedPacket meta) {
    if (blocks_.empty() || block_used_ + bytes.size() > block_size_) {
      block_size_ = bytes.size() > block_bytes_ ? bytes.size() : block_bytes_;
      blocks_.push_back(std::make_unique_for_overwrite<uint8_t[]>(block_size_));
      block_used_ = 0;
    }
    uint8_t* at = blocks_.back().get() + block_used_;
    std::memcpy(at, bytes.data(), bytes.size());
    block_used_ += bytes.size();
    bytes_ += bytes.size();
    meta.data = at;
    meta.bytes = static_cast<uint32_t>(bytes.size());
    return packets_.emplace_back(meta);
  }

  // Takes the last `count` packets out of the index (their bytes stay until the segment goes).
  void drop_tail(size_t count) { packets_.resize(packets_.size() - count); }

  // A decoder can start on the segment's first packet.
  [[nodiscard]] bool key() const { return key_; }
  [[nodiscard]] size_t bytes() const { return bytes_; }
  [[nodiscard]] const std::vector<LoggedPacket>& packets() const { return packets_; }

  // Set once, by the engine's thread, when a newer segment begins.
  std::weak_ptr<LogSegment> next;

 private:
  bool key_;
  size_t block_bytes_;
  size_t block_size_ = 0;
  size_t block_used_ = 0;
  size_t bytes_ = 0;
  std::vector<std::unique_ptr<uint8_t[]>> blocks_;
  std::vector<LoggedPacket> packets_;
};

// A place in the log: the packet `index` of `segment`.
struct LogCursor {
  std::shared_ptr<LogSegment> segment;
  size_t index = 0;
};

}  // namespace apo
