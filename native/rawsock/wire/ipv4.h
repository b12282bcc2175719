// IPv4 header (RFC 791 3.1): a field table and a checked view. After `parse` succeeded no accessor
// reads outside the packet; whether the header is *acceptable* (checksum, addresses, fragments) is
// ip_input's matter.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "wire/byte_order.h"

namespace apo::wire {

// Byte offsets of the fields.
namespace ipv4_field {
inline constexpr size_t kVersionIhl = 0;
inline constexpr size_t kTrafficClass = 1;
inline constexpr size_t kTotalLength = 2;
inline constexpr size_t kIdentification = 4;
inline constexpr size_t kFragment = 6;
inline constexpr size_t kTtl = 8;
inline constexpr size_t kProtocol = 9;
inline constexpr size_t kChecksum = 10;
inline constexpr size_t kSource = 12;
inline constexpr size_t kDestination = 16;
inline constexpr size_t kOptions = 20;
}  // namespace ipv4_field

class Ipv4View {
 public:
  static constexpr size_t kHeaderBytes = 20;
  static constexpr size_t kAddressBytes = 4;
  static constexpr uint16_t kDontFragment = 0x4000;
  static constexpr uint16_t kMoreFragments = 0x2000;
  static constexpr uint16_t kFragmentOffsetMask = 0x1fff;

  // nullopt: not version 4, or a length field that does not fit the bytes. Bytes behind the total
  // length are padding and left out of the view.
  static std::optional<Ipv4View> parse(std::span<const uint8_t> bytes) {
    if (bytes.size() < kHeaderBytes || bytes[0] >> 4 != 4) return std::nullopt;
    const size_t header_bytes = static_cast<size_t>(bytes[0] & 0x0f) * 4;
    const size_t total_length = load16(bytes.data() + ipv4_field::kTotalLength);
    if (header_bytes < kHeaderBytes || total_length < header_bytes) return std::nullopt;
    if (total_length > bytes.size()) return std::nullopt;
    return Ipv4View(bytes.data(), header_bytes, total_length);
  }

  [[nodiscard]] size_t header_bytes() const { return header_bytes_; }
  [[nodiscard]] size_t total_length() const { return total_length_; }
  [[nodiscard]] uint8_t traffic_class() const { return at_[ipv4_field::kTrafficClass]; }
  [[nodiscard]] uint16_t fragment_word() const { return load16(at_ + ipv4_field::kFragment); }
  [[nodiscard]] bool is_fragment() const {
    return (fragment_word() & (kMoreFragments | kFragmentOffsetMask)) != 0;
  }
  [[nodiscard]] uint8_t ttl() const { return at_[ipv4_field::kTtl]; }
  [[nodiscard]] uint8_t protocol() const { return at_[ipv4_field::kProtocol]; }
  [[nodiscard]] const uint8_t* source() const { return at_ + ipv4_field::kSource; }
  [[nodiscard]] const uint8_t* destination() const { return at_ + ipv4_field::kDestination; }
  [[nodiscard]] std::span<const uint8_t> header() const { return {at_, header_bytes_}; }
  [[nodiscard]] std::span<const uint8_t> options() const {
    return {at_ + kHeaderBytes, header_bytes_ - kHeaderBytes};
  }
  [[nodiscard]] std::span<const uint8_t> payload() const {
    return {at_ + header_bytes_, total_length_ - header_bytes_};
  }

 private:
  Ipv4View(const uint8_t* at, size_t header_bytes, size_t total_length)
      : at_(at), header_bytes_(header_bytes), total_length_(total_length) {}

  const uint8_t* at_;
  size_t header_bytes_;
  size_t total_length_;
};

}  // namespace apo::wire
