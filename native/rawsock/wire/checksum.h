// The Internet checksum (RFC 1071): one's complement sum of 16-bit words, whole, in parts and
// incremental.
//
// A `Sum` is kept in the machine's own byte order and unfolded; only `finish` makes the two bytes
// that go on the wire. Parts may be added in any order as long as each starts at an even offset of
// the whole.
#pragma once

#include <cstddef>
#include <cstdint>

namespace apo::wire {

using Sum = uint64_t;

// Adds `length` bytes; an odd last byte counts as if a zero followed it.
[[nodiscard]] Sum checksum_add(Sum sum, const uint8_t* bytes, size_t length);

// Adds one 16-bit number of the pseudo header (given as a number, not in network order).
[[nodiscard]] Sum checksum_add16(Sum sum, uint16_t value);

// The pseudo header of UDP, TCP and ICMPv6: both addresses, the upper layer's length and the
// protocol (RFC 768, RFC 8200 8.1). `address_bytes` is 4 or 16; source and destination lie one
// after the other.
[[nodiscard]] Sum checksum_pseudo_header(const uint8_t* addresses, size_t address_bytes,
                                         uint32_t upper_length, uint8_t protocol);

// The checksum field's value, to be stored with `store16`.
[[nodiscard]] uint16_t checksum_finish(Sum sum);

// True when the sum covers a checksum field that was right.
[[nodiscard]] inline bool checksum_is_valid(Sum sum) { return checksum_finish(sum) == 0; }

// RFC 1624, equation 3: the field's new value after one 16-bit word changed from `from` to `to`.
[[nodiscard]] uint16_t checksum_update16(uint16_t field, uint16_t from, uint16_t to);

}  // namespace apo::wire
