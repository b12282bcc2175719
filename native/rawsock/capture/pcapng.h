// The blocks of a pcapng file (draft-ietf-opsawg-pcapng), encoded into memory of the caller. Always
// little-endian: readers tell by the section header's magic.
//
// Pure: it knows neither files nor packets' contents. One section, one interface whose packets begin
// with their IP header (LINKTYPE_RAW), times in microseconds since 1970.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace apo::pcapng {

// epb_flags, bits 0-1.
enum class Direction : uint8_t { kInbound = 1, kOutbound = 2 };

inline constexpr uint16_t kLinkTypeRaw = 101;

// Every block is a multiple of four bytes, and says its length in its second word and its last one.
inline constexpr size_t kBlockLengthOffset = 4;
inline constexpr size_t kCommentBytesMax = 1024;

// Section header and interface description; what a file starts with.
inline constexpr size_t kFileHeaderBytesMax = 128;
[[nodiscard]] size_t write_file_header(std::span<uint8_t, kFileHeaderBytesMax> out,
                                       uint32_t snap_bytes);

struct Packet {
  uint64_t time_us = 0;               // since 1970
  std::span<const uint8_t> captured;  // what is kept of it
  uint32_t original_bytes = 0;        // what it had
  Direction direction = Direction::kInbound;
  std::string_view comment;  // none when empty; cut after kCommentBytesMax
};

// Where the captured bytes begin in an enhanced packet block.
inline constexpr size_t kPacketBytesOffset = 28;
[[nodiscard]] size_t packet_block_bytes(const Packet& packet);
// Writes `packet_block_bytes` bytes.
void write_packet_block(uint8_t* out, const Packet& packet);

struct Statistics {
  uint64_t start_us = 0;
  uint64_t end_us = 0;
  uint64_t seen = 0;     // packets that were to be captured
  uint64_t written = 0;  // that stand in the file
  uint64_t missed = 0;   // that do not
  std::string_view comment;
};

inline constexpr size_t kStatisticsBytesMax = 128 + kCommentBytesMax;
[[nodiscard]] size_t write_statistics(std::span<uint8_t, kStatisticsBytesMax> out,
                                      const Statistics& statistics);

}  // namespace apo::pcapng
