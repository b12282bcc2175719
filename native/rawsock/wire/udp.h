// UDP header (RFC 768): field table and checked view.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "wire/byte_order.h"

namespace apo::wire {

namespace udp_field {
inline constexpr size_t kSourcePort = 0;
inline constexpr size_t kDestinationPort = 2;
inline constexpr size_t kLength = 4;
inline constexpr size_t kChecksum = 6;
}  // namespace udp_field

class UdpView {
 public:
  static constexpr size_t kHeaderBytes = 8;

  // nullopt: a length shorter than the header or longer than the IP payload. What lies behind the
  // UDP length is not part of the datagram (RFC 9868 would call it options) and is left out.
  static std::optional<UdpView> parse(std::span<const uint8_t> ip_payload) {
    if (ip_payload.size() < kHeaderBytes) return std::nullopt;
    const size_t length = load16(ip_payload.data() + udp_field::kLength);
    if (length < kHeaderBytes || length > ip_payload.size()) return std::nullopt;
    return UdpView(ip_payload.data(), length);
  }

  [[nodiscard]] uint16_t source_port() const { return load16(at_ + udp_field::kSourcePort); }
  [[nodiscard]] uint16_t destination_port() const {
    return load16(at_ + udp_field::kDestinationPort);
  }
  [[nodiscard]] size_t length() const { return length_; }
  [[nodiscard]] uint16_t checksum() const { return load16(at_ + udp_field::kChecksum); }
  [[nodiscard]] std::span<const uint8_t> bytes() const { return {at_, length_}; }
  [[nodiscard]] std::span<const uint8_t> payload() const {
    return {at_ + kHeaderBytes, length_ - kHeaderBytes};
  }

 private:
  UdpView(const uint8_t* at, size_t length) : at_(at), length_(length) {}

  const uint8_t* at_;
  size_t length_;
};

}  // namespace apo::wire
