// ICMP (RFC 792) and ICMPv6 (RFC 4443) messages: field table, types and a checked view. The two
// share their first eight bytes: type, code, checksum and a word that depends on the type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "wire/byte_order.h"

namespace apo::wire {

namespace icmp_field {
inline constexpr size_t kType = 0;
inline constexpr size_t kCode = 1;
inline constexpr size_t kChecksum = 2;
inline constexpr size_t kIdentifier = 4;  // echo
inline constexpr size_t kSequence = 6;    // echo
inline constexpr size_t kMtu4 = 6;        // fragmentation needed (RFC 1191 4)
inline constexpr size_t kMtu6 = 4;        // packet too big (RFC 4443 3.2)
inline constexpr size_t kQuoted = 8;  // errors: the packet that caused them, from its IP header on
}  // namespace icmp_field

namespace icmp_type {
inline constexpr uint8_t kEchoReply = 0;
inline constexpr uint8_t kUnreachable = 3;
inline constexpr uint8_t kEchoRequest = 8;
inline constexpr uint8_t kTimeExceeded = 11;
inline constexpr uint8_t kParameterProblem = 12;
inline constexpr uint8_t kCodePortUnreachable = 3;
inline constexpr uint8_t kCodeFragmentationNeeded = 4;
}  // namespace icmp_type

namespace icmpv6_type {
inline constexpr uint8_t kUnreachable = 1;
inline constexpr uint8_t kPacketTooBig = 2;
inline constexpr uint8_t kTimeExceeded = 3;
inline constexpr uint8_t kParameterProblem = 4;
inline constexpr uint8_t kEchoRequest = 128;
inline constexpr uint8_t kEchoReply = 129;
inline constexpr uint8_t kCodePortUnreachable = 4;
}  // namespace icmpv6_type

class IcmpView {
 public:
  static constexpr size_t kHeaderBytes = 8;

  static std::optional<IcmpView> parse(std::span<const uint8_t> ip_payload) {
    if (ip_payload.size() < kHeaderBytes) return std::nullopt;
    return IcmpView(ip_payload);
  }

  [[nodiscard]] uint8_t type() const { return bytes_[icmp_field::kType]; }
  [[nodiscard]] uint8_t code() const { return bytes_[icmp_field::kCode]; }
  [[nodiscard]] uint16_t identifier() const {
    return load16(bytes_.data() + icmp_field::kIdentifier);
  }
  [[nodiscard]] uint16_t sequence() const { return load16(bytes_.data() + icmp_field::kSequence); }
  [[nodiscard]] std::span<const uint8_t> bytes() const { return bytes_; }
  // Echo: the data. Errors: the quoted packet.
  [[nodiscard]] std::span<const uint8_t> body() const { return bytes_.subspan(kHeaderBytes); }

  [[nodiscard]] bool is_echo_request(bool version6) const {
    return type() == (version6 ? icmpv6_type::kEchoRequest : icmp_type::kEchoRequest) &&
           code() == 0;
  }
  [[nodiscard]] bool is_echo_reply(bool version6) const {
    return type() == (version6 ? icmpv6_type::kEchoReply : icmp_type::kEchoReply) && code() == 0;
  }
  // Errors quote a packet of ours; nothing may be sent in answer to one (RFC 1122 3.2.2, RFC
  // 4443 2.4 e).
  [[nodiscard]] bool is_error(bool version6) const {
    if (version6) return type() < 128;
    return type() == icmp_type::kUnreachable || type() == icmp_type::kTimeExceeded ||
           type() == icmp_type::kParameterProblem;
  }

 private:
  explicit IcmpView(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  std::span<const uint8_t> bytes_;
};

}  // namespace apo::wire
