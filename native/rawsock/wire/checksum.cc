#include "wire/checksum.h"

#include <bit>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace apo::wire {
namespace {

template <typename Word>
Word load_native(const uint8_t* at) {
  Word word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

// A word's two halves. 2^32 of them fit a sum of 64 bits before a carry could be lost: more than any
// packet holds. (Folding may come last: every power of 2^16 is 1 modulo 2^16 - 1.)
uint64_t halves(uint64_t word) { return (word & 0xffffffff) + (word >> 32); }

uint32_t fold32(Sum sum) { return static_cast<uint32_t>(halves(halves(sum))); }

uint16_t to_native16(uint16_t value) {
  if constexpr (std::endian::native == std::endian::little) return __builtin_bswap16(value);
  return value;
}

#if defined(__x86_64__)
#define APO_CHECKSUM_AVX2 1

constexpr size_t kVectorBytes = 32;
// Less than this is done no sooner by vectors (measured: 64 and 96 bytes take the same either way).
constexpr size_t kVectorMinBytes = 128;

// Asked once; whoever comes before this has been initialised takes the way that works anywhere.
const bool kHasAvx2 = [] {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") != 0;
}();

__attribute__((target("avx2"))) __m256i add_vector(__m256i lanes, const uint8_t* at) {
  const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
  const __m256i low_halves = _mm256_and_si256(words, _mm256_set1_epi64x(0xffffffff));
  lanes = _mm256_add_epi64(lanes, low_halves);
  return _mm256_add_epi64(lanes, _mm256_srli_epi64(words, 32));
}

// `length` is a multiple of kVectorBytes.
__attribute__((target("avx2"))) Sum add_vectors(const uint8_t* bytes, size_t length) {
  constexpr size_t kAtOnce = 4;  // independent sums, so that the adders are never waited for
  __m256i lanes[kAtOnce] = {};
  const uint8_t* const end = bytes + length;
  for (; static_cast<size_t>(end - bytes) >= kAtOnce * kVectorBytes;
       bytes += kAtOnce * kVectorBytes) {
    for (size_t i = 0; i < kAtOnce; ++i) {
      lanes[i] = add_vector(lanes[i], bytes + i * kVectorBytes);
    }
  }
  for (; bytes != end; bytes += kVectorBytes) lanes[0] = add_vector(lanes[0], bytes);
  const __m256i four =
      _mm256_add_epi64(_mm256_add_epi64(lanes[0], lanes[1]), _mm256_add_epi64(lanes[2], lanes[3]));
  const __m128i two =
      _mm_add_epi64(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
  return static_cast<uint64_t>(_mm_extract_epi64(two, 0)) +
         static_cast<uint64_t>(_mm_extract_epi64(two, 1));
}
#endif

}  // namespace

Sum checksum_add(Sum sum, const uint8_t* bytes, size_t length) {
  Sum total = halves(sum);
#ifdef APO_CHECKSUM_AVX2
  if (length >= kVectorMinBytes && kHasAvx2) {
    const size_t whole = length & ~(kVectorBytes - 1);
    total += add_vectors(bytes, whole);
    bytes += whole;
    length -= whole;
  }
#endif
  while (length >= 16) {
    total += halves(load_native<uint64_t>(bytes)) + halves(load_native<uint64_t>(bytes + 8));
    bytes += 16;
    length -= 16;
  }
  if ((length & 8) != 0) {
    total += halves(load_native<uint64_t>(bytes));
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
