// TCP header (RFC 9293 3.1): field table, flags and checked view.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "wire/byte_order.h"

namespace apo::wire {

namespace tcp_field {
inline constexpr size_t kSourcePort = 0;
inline constexpr size_t kDestinationPort = 2;
inline constexpr size_t kSequence = 4;
inline constexpr size_t kAcknowledgment = 8;
inline constexpr size_t kDataOffset = 12;  // upper four bits, in words of four bytes
inline constexpr size_t kFlags = 13;
inline constexpr size_t kWindow = 14;
inline constexpr size_t kChecksum = 16;
inline constexpr size_t kUrgentPointer = 18;
inline constexpr size_t kOptions = 20;
}  // namespace tcp_field

namespace tcp_flag {
inline constexpr uint8_t kFin = 0x01;
inline constexpr uint8_t kSyn = 0x02;
inline constexpr uint8_t kRst = 0x04;
inline constexpr uint8_t kPsh = 0x08;
inline constexpr uint8_t kAck = 0x10;
inline constexpr uint8_t kUrg = 0x20;
inline constexpr uint8_t kEce = 0x40;
inline constexpr uint8_t kCwr = 0x80;
}  // namespace tcp_flag

namespace tcp_option {
inline constexpr uint8_t kEnd = 0;
inline constexpr uint8_t kNop = 1;
}  // namespace tcp_option

class TcpView {
 public:
  static constexpr size_t kHeaderBytes = 20;

  // nullopt: a data offset shorter than the header or longer than the IP payload.
  static std::optional<TcpView> parse(std::span<const uint8_t> ip_payload) {
    if (ip_payload.size() < kHeaderBytes) return std::nullopt;
    const size_t header_bytes = static_cast<size_t>(ip_payload[tcp_field::kDataOffset] >> 4) * 4;
    if (header_bytes < kHeaderBytes || header_bytes > ip_payload.size()) return std::nullopt;
    return TcpView(ip_payload, header_bytes);
  }

  [[nodiscard]] uint16_t source_port() const {
    return load16(bytes_.data() + tcp_field::kSourcePort);
  }
  [[nodiscard]] uint16_t destination_port() const {
    return load16(bytes_.data() + tcp_field::kDestinationPort);
  }
  [[nodiscard]] uint32_t sequence() const { return load32(bytes_.data() + tcp_field::kSequence); }
  [[nodiscard]] uint32_t acknowledgment() const {
    return load32(bytes_.data() + tcp_field::kAcknowledgment);
  }
  [[nodiscard]] uint8_t flags() const { return bytes_[tcp_field::kFlags]; }
  [[nodiscard]] bool has(uint8_t flag) const { return (flags() & flag) != 0; }
  [[nodiscard]] uint16_t window() const { return load16(bytes_.data() + tcp_field::kWindow); }
  [[nodiscard]] uint16_t checksum() const { return load16(bytes_.data() + tcp_field::kChecksum); }
  [[nodiscard]] uint16_t urgent_pointer() const {
    return load16(bytes_.data() + tcp_field::kUrgentPointer);
  }
  [[nodiscard]] size_t header_bytes() const { return header_bytes_; }
  [[nodiscard]] std::span<const uint8_t> bytes() const { return bytes_; }
  [[nodiscard]] std::span<const uint8_t> options() const {
    return bytes_.subspan(kHeaderBytes, header_bytes_ - kHeaderBytes);
  }
  [[nodiscard]] std::span<const uint8_t> payload() const { return bytes_.subspan(header_bytes_); }

 private:
  TcpView(std::span<const uint8_t> bytes, size_t header_bytes)
      : bytes_(bytes), header_bytes_(header_bytes) {}

  std::span<const uint8_t> bytes_;
  size_t header_bytes_;
};

}  // namespace apo::wire
