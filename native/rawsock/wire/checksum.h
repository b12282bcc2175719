// The Internet checksum (RFC 1071): one's complement sum of 16-bit words, whole, in parts and
// incremental.
//
// A `Sum` is kept in the machine's own byte order and unfolded; only `finish` makes the two bytes
// that go on the wire. Parts may be added in any order as long as each starts at an even offset of
// the whole. What headers and short packets take is inline: a call costs more than their sum.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace apo::wire {

using Sum = uint64_t;

template <typename Word>
[[nodiscard]] inline Word load_native(const uint8_t* at) {
  Word word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

[[nodiscard]] inline uint16_t to_native16(uint16_t value) {
  if constexpr (std::endian::native == std::endian::little) return __builtin_bswap16(value);
  return value;
}

// A word's two halves. 2^32 of them fit a sum of 64 bits before a carry could be lost: more than any
// packet holds. (Folding may come last: every power of 2^16 is 1 modulo 2^16 - 1.)
[[nodiscard]] inline Sum checksum_halves(uint64_t word) {
  return (word & 0xffffffff) + (word >> 32);
}

[[nodiscard]] inline Sum checksum_add_short(Sum sum, const uint8_t* bytes, size_t length) {
  Sum total = checksum_halves(sum);
  while (length >= 16) {
    total += checksum_halves(load_native<uint64_t>(bytes)) +
             checksum_halves(load_native<uint64_t>(bytes + 8));
    bytes += 16;
    length -= 16;
  }
  if ((length & 8) != 0) {
    total += checksum_halves(load_native<uint64_t>(bytes));
    bytes += 8;
  }
  if ((length & 4) != 0) {
    total += load_native<uint32_t>(bytes);
    bytes += 4;
  }
  if ((length & 2) != 0) {
    total += load_native<uint16_t>(bytes);
    bytes += 2;
  }
  if ((length & 1) != 0) {
    const uint8_t last[2] = {*bytes, 0};
    total += load_native<uint16_t>(last);
  }
  return total;
}

// By vectors, where the processor has them.
[[nodiscard]] Sum checksum_add_long(Sum sum, const uint8_t* bytes, size_t length);

// Less than this is done no sooner by vectors (measured: 64 and 96 bytes take the same either way).
inline constexpr size_t kChecksumLongBytes = 128;

// Adds `length` bytes; an odd last byte counts as if a zero followed it.
[[nodiscard]] inline Sum checksum_add(Sum sum, const uint8_t* bytes, size_t length) {
  return length < kChecksumLongBytes ? checksum_add_short(sum, bytes, length)
                                     : checksum_add_long(sum, bytes, length);
}

// Adds one 16-bit number of the pseudo header (given as a number, not in network order).
[[nodiscard]] inline Sum checksum_add16(Sum sum, uint16_t value) {
  return sum + to_native16(value);
}

// The pseudo header of UDP, TCP and ICMPv6: both addresses, the upper layer's length and the
// protocol (RFC 768, RFC 8200 8.1). `address_bytes` is 4 or 16; source and destination lie one
// after the other.
[[nodiscard]] inline Sum checksum_pseudo_header(const uint8_t* addresses, size_t address_bytes,
                                                uint32_t upper_length, uint8_t protocol) {
  Sum sum = checksum_add_short(0, addresses, 2 * address_bytes);
  sum = checksum_add16(sum, static_cast<uint16_t>(upper_length >> 16));
  sum = checksum_add16(sum, static_cast<uint16_t>(upper_length));
  return checksum_add16(sum, protocol);
}

// The checksum field's value, to be stored with `store16`.
[[nodiscard]] inline uint16_t checksum_finish(Sum sum) {
  sum = checksum_halves(checksum_halves(sum));
  auto folded = static_cast<uint32_t>(sum);
  folded = (folded & 0xffff) + (folded >> 16);
  folded = (folded & 0xffff) + (folded >> 16);
  return to_native16(static_cast<uint16_t>(~folded));
}

// True when the sum covers a checksum field that was right.
[[nodiscard]] inline bool checksum_is_valid(Sum sum) { return checksum_finish(sum) == 0; }

// RFC 1624, equation 3: the field's new value after one 16-bit word changed from `from` to `to`.
[[nodiscard]] inline uint16_t checksum_update16(uint16_t field, uint16_t from, uint16_t to) {
  uint32_t sum = static_cast<uint16_t>(~field);
  sum += static_cast<uint16_t>(~from);
  sum += to;
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

}  // namespace apo::wire
