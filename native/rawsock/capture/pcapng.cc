#include "capture/pcapng.h"

#include <algorithm>
#include <cstring>

namespace apo::pcapng {
namespace {

constexpr uint32_t kSectionHeader = 0x0a0d0d0a;
constexpr uint32_t kInterfaceDescription = 1;
constexpr uint32_t kInterfaceStatistics = 5;
constexpr uint32_t kEnhancedPacket = 6;
constexpr uint32_t kByteOrderMagic = 0x1a2b3c4d;

constexpr uint16_t kComment = 1;
constexpr uint16_t kSectionApplication = 4;
constexpr uint16_t kInterfaceTimeResolution = 9;
constexpr uint16_t kPacketFlags = 2;
constexpr uint16_t kStatisticsStart = 2;
constexpr uint16_t kStatisticsEnd = 3;
constexpr uint16_t kStatisticsReceived = 4;
constexpr uint16_t kStatisticsDropped = 5;
constexpr uint16_t kStatisticsDelivered = 8;

constexpr uint8_t kMicroseconds = 6;  // 10^-6
constexpr size_t kOptionHeaderBytes = 4;
constexpr size_t kTrailerBytes = 4;

constexpr size_t padded(size_t bytes) { return (bytes + 3) & ~size_t{3}; }

std::string_view cut(std::string_view comment) { return comment.substr(0, kCommentBytesMax); }

// Writes one block front to back; the caller has made room.
class Block {
 public:
  Block(uint8_t* out, uint32_t type) : start_(out), at_(out) {
    put32(type);
    put32(0);  // the length, by `end`
  }

  void put16(uint32_t value) {
    at_[0] = static_cast<uint8_t>(value);
    at_[1] = static_cast<uint8_t>(value >> 8);
    at_ += 2;
  }
  void put32(uint32_t value) {
    put16(value & 0xffff);
    put16(value >> 16);
  }
  // Times are two words, the high one first, whatever the order of bytes; other 64-bit numbers are not.
  void put_time(uint64_t value) {
    put32(static_cast<uint32_t>(value >> 32));
    put32(static_cast<uint32_t>(value));
  }
  void put64(uint64_t value) {
    put32(static_cast<uint32_t>(value));
    put32(static_cast<uint32_t>(value >> 32));
  }
  void put_bytes(const void* bytes, size_t length) {
    if (length > 0) std::memcpy(at_, bytes, length);
    at_ += length;
    for (size_t pad = padded(length); pad > length; --pad) *at_++ = 0;
  }

  void option(uint16_t code, const void* value, size_t length) {
    put16(code);
    put16(static_cast<uint32_t>(length));
    put_bytes(value, length);
  }
  void option_text(uint16_t code, std::string_view text) {
    if (!text.empty()) option(code, text.data(), text.size());
  }
  void option_count(uint16_t code, uint64_t value) {
    put16(code);
    put16(8);
    put64(value);
  }
  void option_time(uint16_t code, uint64_t value) {
    put16(code);
    put16(8);
    put_time(value);
  }

  // Ends the options and the block; returns its length.
  size_t end() {
    put32(0);  // opt_endofopt
    const auto length = static_cast<uint32_t>(at_ - start_ + kTrailerBytes);
    put32(length);
    at_ = start_ + kBlockLengthOffset;
    put32(length);
    return length;
  }

 private:
  uint8_t* start_;
  uint8_t* at_;
};

}  // namespace

size_t write_file_header(std::span<uint8_t, kFileHeaderBytesMax> out, uint32_t snap_bytes) {
  Block section(out.data(), kSectionHeader);
  section.put32(kByteOrderMagic);
  section.put16(1);  // version 1.0
  section.put16(0);
  section.put64(UINT64_MAX);  // the section's length: not known
  section.option_text(kSectionApplication, "apo");
  const size_t section_bytes = section.end();
  Block interface(out.data() + section_bytes, kInterfaceDescription);
  interface.put16(kLinkTypeRaw);
  interface.put16(0);
  interface.put32(snap_bytes);
  interface.option(kInterfaceTimeResolution, &kMicroseconds, 1);
  return section_bytes + interface.end();
}

size_t packet_block_bytes(const Packet& packet) {
  const size_t comment = cut(packet.comment).size();
  const size_t flags = kOptionHeaderBytes + 4;
  const size_t options =
      (comment > 0 ? kOptionHeaderBytes + padded(comment) : 0) + flags + kOptionHeaderBytes;
  return kPacketBytesOffset + padded(packet.captured.size()) + options + kTrailerBytes;
}

void write_packet_block(uint8_t* out, const Packet& packet) {
  Block block(out, kEnhancedPacket);
  block.put32(0);  // the one interface
  block.put_time(packet.time_us);
  block.put32(static_cast<uint32_t>(packet.captured.size()));
  block.put32(packet.original_bytes);
  block.put_bytes(packet.captured.data(), packet.captured.size());
  block.put16(kPacketFlags);
  block.put16(4);
  block.put32(static_cast<uint32_t>(packet.direction));
  block.option_text(kComment, cut(packet.comment));
  (void)block.end();
}

size_t write_statistics(std::span<uint8_t, kStatisticsBytesMax> out, const Statistics& statistics) {
  Block block(out.data(), kInterfaceStatistics);
  block.put32(0);
  block.put_time(statistics.end_us);
  block.option_time(kStatisticsStart, statistics.start_us);
  block.option_time(kStatisticsEnd, statistics.end_us);
  block.option_count(kStatisticsReceived, statistics.seen);
  block.option_count(kStatisticsDropped, statistics.missed);
  block.option_count(kStatisticsDelivered, statistics.written);
  block.option_text(kComment, cut(statistics.comment));
  return block.end();
}

}  // namespace apo::pcapng
