#include "wire/checksum.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace apo::wire {
namespace {

#if defined(__x86_64__)
#define APO_CHECKSUM_AVX2 1

constexpr size_t kVectorBytes = 32;

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

Sum checksum_add_long(Sum sum, const uint8_t* bytes, size_t length) {
#ifdef APO_CHECKSUM_AVX2
  if (kHasAvx2) {
    const size_t whole = length & ~(kVectorBytes - 1);
    return checksum_add_short(checksum_halves(sum) + add_vectors(bytes, whole), bytes + whole,
                              length - whole);
  }
#endif
  return checksum_add_short(sum, bytes, length);
}

}  // namespace apo::wire
