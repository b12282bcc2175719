// A keyed hash of a packet's source, and where that source stands in the packet. SipHash-1-3 (the
// 64-bit kind of Aumasson and Bernstein's; one round a word, three at the end): whoever does not
// know the key cannot choose sources that fall into one bucket.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace apo {

struct HashKey {
  uint64_t low = 0;
  uint64_t high = 0;
};

// Of an address, or of as much of it as a prefix has (the rest zero): its first and last eight
// bytes as numbers, IPv4 in the lower half of the first.
inline uint64_t source_hash(HashKey key, uint8_t version, uint64_t first, uint64_t last) {
  uint64_t v0 = 0x736f6d6570736575 ^ key.low, v1 = 0x646f72616e646f6d ^ key.high;
  uint64_t v2 = 0x6c7967656e657261 ^ key.low, v3 = 0x7465646279746573 ^ key.high;
  const auto round = [&] {
    v0 += v1;
    v1 = std::rotl(v1, 13) ^ v0;
    v0 = std::rotl(v0, 32);
    v2 += v3;
    v3 = std::rotl(v3, 16) ^ v2;
    v0 += v3;
    v3 = std::rotl(v3, 21) ^ v0;
    v2 += v1;
    v1 = std::rotl(v1, 17) ^ v2;
    v2 = std::rotl(v2, 32);
  };
  const auto add = [&](uint64_t word) {
    v3 ^= word;
    round();
    v0 ^= word;
  };
  add(first);
  if (version == 6) add(last);
  add(version);
  v2 ^= 0xff;
  for (int i = 0; i < 3; ++i) round();
  return v0 ^ v1 ^ v2 ^ v3;
}

struct PacketSource {
  uint8_t version = 0;  // 4 or 6; 0: no IP packet
  uint8_t hop_limit = 0;
  const uint8_t* address = nullptr;  // 4 or 16 bytes
};

// Looks at the version and the bytes' number only: the packet may be wrong in every other way.
inline PacketSource packet_source(std::span<const uint8_t> bytes) {
  const uint8_t version = bytes.empty() ? 0 : bytes[0] >> 4;
  if (version == 4 && bytes.size() >= wire::Ipv4View::kHeaderBytes) {
    return {4, bytes[wire::ipv4_field::kTtl], bytes.data() + wire::ipv4_field::kSource};
  }
  if (version == 6 && bytes.size() >= wire::Ipv6View::kHeaderBytes) {
    return {6, bytes[wire::ipv6_field::kHopLimit], bytes.data() + wire::ipv6_field::kSource};
  }
  return {};
}

}  // namespace apo
