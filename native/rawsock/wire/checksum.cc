#include "wire/checksum.h"

#include <bit>
#include <cstring>

namespace apo::wire {
namespace {

// Bytes per round of the main loop: eight independent 32-bit lanes, which compilers turn into
// vector adds.
constexpr size_t kBlockBytes = 32;
constexpr size_t kLanes = kBlockBytes / sizeof(uint32_t);

uint32_t fold32(Sum sum) {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffffffff) + (sum >> 32);
  return static_cast<uint32_t>(sum);
}

uint16_t to_native16(uint16_t value) {
  if constexpr (std::endian::native == std::endian::little) return __builtin_bswap16(value);
  return value;
}

}  // namespace

Sum checksum_add(Sum sum, const uint8_t* bytes, size_t length) {
  // A lane of 64 bits takes 2^32 words of 32 bits before it could overflow: more than any packet
  // holds.
  uint64_t lanes[kLanes] = {};
  while (length >= kBlockBytes) {
    uint32_t words[kLanes];
    std::memcpy(words, bytes, kBlockBytes);
    for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += words[lane];
    bytes += kBlockBytes;
    length -= kBlockBytes;
  }
  uint64_t total = fold32(sum);
  for (uint64_t lane : lanes) total += fold32(lane);
  while (length >= sizeof(uint32_t)) {
    uint32_t word;
    std::memcpy(&word, bytes, sizeof word);
    total += word;
    bytes += sizeof word;
    length -= sizeof word;
  }
  if (length > 0) {
    uint32_t word = 0;
    std::memcpy(&word, bytes, length);
    // On a big-endian machine the bytes after the last belong below it; memcpy has put them right
    // there too.
    total += word;
  }
  return total;
}

Sum checksum_add16(Sum sum, uint16_t value) { return sum + to_native16(value); }

Sum checksum_pseudo_header(const uint8_t* addresses, size_t address_bytes, uint32_t upper_length,
                           uint8_t protocol) {
  Sum sum = checksum_add(0, addresses, 2 * address_bytes);
  sum = checksum_add16(sum, static_cast<uint16_t>(upper_length >> 16));
  sum = checksum_add16(sum, static_cast<uint16_t>(upper_length));
  return checksum_add16(sum, protocol);
}

uint16_t checksum_finish(Sum sum) {
  uint32_t folded = fold32(sum);
  folded = (folded & 0xffff) + (folded >> 16);
  folded = (folded & 0xffff) + (folded >> 16);
  return to_native16(static_cast<uint16_t>(~folded));
}

uint16_t checksum_update16(uint16_t field, uint16_t from, uint16_t to) {
  uint32_t sum = static_cast<uint16_t>(~field);
  sum += static_cast<uint16_t>(~from);
  sum += to;
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

}  // namespace apo::wire
