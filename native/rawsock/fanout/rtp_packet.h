// A checked view of an RTP packet (RFC 3550 5.1). After `parse` succeeded, no accessor reads
// outside the packet.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace apo {

inline uint16_t load_be16(const uint8_t* at) { return static_cast<uint16_t>(at[0] << 8 | at[1]); }
inline uint32_t load_be32(const uint8_t* at) {
  return static_cast<uint32_t>(at[0]) << 24 | static_cast<uint32_t>(at[1]) << 16 |
         static_cast<uint32_t>(at[2]) << 8 | at[3];
}
inline void store_be16(uint8_t* at, uint32_t value) {
  at[0] = static_cast<uint8_t>(value >> 8);
  at[1] = static_cast<uint8_t>(value);
}
inline void store_be32(uint8_t* at, uint32_t value) {
  store_be16(at, value >> 16);
  store_be16(at + 2, value);
}

class RtpPacket {
 public:
  static constexpr size_t kHeaderBytes = 12;

  // nullopt: shorter than its header says, or not version 2.
  static std::optional<RtpPacket> parse(std::span<const uint8_t> bytes) {
    if (bytes.size() < kHeaderBytes || bytes[0] >> 6 != 2) return std::nullopt;
    size_t offset = kHeaderBytes + 4 * static_cast<size_t>(bytes[0] & 0x0f);
    if ((bytes[0] & 0x10) != 0) {
      if (bytes.size() < offset + 4) return std::nullopt;
      offset += 4 + 4 * static_cast<size_t>(load_be16(bytes.data() + offset + 2));
    }
    size_t end = bytes.size();
    if ((bytes[0] & 0x20) != 0 && offset < end) {
      const size_t padding = bytes[end - 1];
      if (padding == 0 || padding > end - offset) return std::nullopt;
      end -= padding;
    }
    if (offset > end) return std::nullopt;
    return RtpPacket(bytes, offset, end);
  }

  [[nodiscard]] bool marker() const { return (bytes_[1] & 0x80) != 0; }
  [[nodiscard]] uint8_t payload_type() const { return bytes_[1] & 0x7f; }
  [[nodiscard]] uint16_t seq() const { return load_be16(bytes_.data() + 2); }
  [[nodiscard]] uint32_t rtp_time() const { return load_be32(bytes_.data() + 4); }
  [[nodiscard]] uint32_t ssrc() const { return load_be32(bytes_.data() + 8); }
  [[nodiscard]] std::span<const uint8_t> payload() const {
    return bytes_.subspan(payload_offset_, payload_end_ - payload_offset_);
  }
  [[nodiscard]] std::span<const uint8_t> bytes() const { return bytes_; }

 private:
  RtpPacket(std::span<const uint8_t> bytes, size_t offset, size_t end)
      : bytes_(bytes), payload_offset_(offset), payload_end_(end) {}

  std::span<const uint8_t> bytes_;
  size_t payload_offset_;
  size_t payload_end_;
};

}  // namespace apo
