// Packets for tests, built the slow and obvious way: nothing here is shared with the code under
// test but byte order.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "wire/byte_order.h"

namespace apo::test {

using Bytes = std::vector<uint8_t>;

inline constexpr uint8_t kOwn4[4] = {10, 0, 0, 1};
inline constexpr uint8_t kPeer4[4] = {10, 0, 0, 2};
inline constexpr uint8_t kOwn6[16] = {0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
inline constexpr uint8_t kPeer6[16] = {0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2};

// RFC 1071, word by word.
inline uint16_t slow_checksum(const Bytes& bytes) {
  uint32_t sum = 0;
  for (size_t i = 0; i < bytes.size(); i += 2) {
    sum += static_cast<uint32_t>(bytes[i]) << 8;
    if (i + 1 < bytes.size()) sum += bytes[i + 1];
    sum = (sum & 0xffff) + (sum >> 16);
  }
  return static_cast<uint16_t>(~sum);
}

inline Bytes concat(const Bytes& a, const Bytes& b) {
  Bytes all = a;
  all.insert(all.end(), b.begin(), b.end());
  return all;
}

inline uint16_t upper_checksum(bool six, const uint8_t* from, const uint8_t* to, uint8_t protocol,
                               const Bytes& upper) {
  if (!six && protocol == 1) return slow_checksum(upper);
  const size_t n = six ? 16 : 4;
  Bytes all(from, from + n);
  all.insert(all.end(), to, to + n);
  const auto length = static_cast<uint8_t>(upper.size() & 0xff);
  const auto length_high = static_cast<uint8_t>(upper.size() >> 8);
  all.insert(all.end(), {length_high, length, 0, protocol});
  return slow_checksum(concat(all, upper));
}

inline Bytes ipv4(uint8_t protocol, const Bytes& upper, const uint8_t* from = kPeer4,
                  const uint8_t* to = kOwn4) {
  Bytes header = {0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, protocol, 0, 0};
  header.insert(header.end(), from, from + 4);
  header.insert(header.end(), to, to + 4);
  wire::store16(&header[2], static_cast<uint32_t>(20 + upper.size()));
  wire::store16(&header[10], slow_checksum(header));
  return concat(header, upper);
}

inline Bytes ipv6(uint8_t next_header, const Bytes& upper, const uint8_t* from = kPeer6,
                  const uint8_t* to = kOwn6) {
  Bytes header = {0x60, 0x01, 0x23, 0x45, 0, 0, next_header, 64};
  header.insert(header.end(), from, from + 16);
  header.insert(header.end(), to, to + 16);
  wire::store16(&header[4], static_cast<uint32_t>(upper.size()));
  return concat(header, upper);
}

inline Bytes with_checksum(Bytes upper, size_t field, bool six, uint8_t protocol) {
  wire::store16(&upper[field], 0);
  wire::store16(&upper[field],
                upper_checksum(six, six ? kPeer6 : kPeer4, six ? kOwn6 : kOwn4, protocol, upper));
  return upper;
}

inline Bytes udp(bool six, uint16_t from_port, uint16_t to_port, const Bytes& payload) {
  Bytes upper(8);
  wire::store16(&upper[0], from_port);
  wire::store16(&upper[2], to_port);
  wire::store16(&upper[4], static_cast<uint32_t>(8 + payload.size()));
  upper = with_checksum(concat(upper, payload), 6, six, 17);
  return six ? ipv6(17, upper) : ipv4(17, upper);
}

inline Bytes icmp(bool six, uint8_t type, uint8_t code, uint32_t word, const Bytes& body) {
  Bytes upper = {type, code, 0, 0, 0, 0, 0, 0};
  wire::store32(&upper[4], word);
  const uint8_t protocol = six ? 58 : 1;
  upper = with_checksum(concat(upper, body), 2, six, protocol);
  return six ? ipv6(protocol, upper) : ipv4(protocol, upper);
}

}  // namespace apo::test
