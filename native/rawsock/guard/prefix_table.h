// The guard's lists: which sources are blocked and which are allowed, IPv4 and IPv6, each prefix on
// one list or both. The longest prefix that holds an address decides, whichever list it is on; at
// equal length "allowed" wins.
//
// One thread changes it at a time (the guard's lock sees to that); any number look up meanwhile,
// without a lock, and see every change at once. A lookup takes about one nanosecond while a family
// has no entries and a few dozen with a million.
//
// Memory: nothing until a family has an entry, then 640 KiB, and for each entry at most one node of
// 160 bytes (typically one for three to four entries) and, IPv6 only, a leaf of 24 bytes; a million
// random prefixes take 56 MB (IPv4) or 78 MB (IPv6). It grows in chunks, is used again after removals, and is given
// back with the table.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "guard/prefix_trie.h"
#include "ip/ip_address.h"
#include "wire/byte_order.h"

namespace apo {

// Bits of a listing.
inline constexpr uint8_t kListedBlocked = 1;
inline constexpr uint8_t kListedAllowed = 2;

class PrefixTable {
 public:
  // Of both families together.
  static constexpr size_t kEntriesMax = 2'000'000;

  enum class Result : uint8_t {
    kDone,
    kUnchanged,  // it was on the list already, or was not on it
    kFull,
    kNoMemory,
    kInvalid,  // no such version, or more bits than an address has
  };

  // `list` is kListedBlocked or kListedAllowed. Bits behind the prefix are ignored.
  Result add(const IpPrefix& prefix, uint8_t list);
  Result remove(const IpPrefix& prefix, uint8_t list);

  // The listing of the longest prefix with this address; 0: none. `address` has 4 or 16 bytes. Any
  // thread.
  [[nodiscard]] uint8_t find(uint8_t version, const uint8_t* address) const {
    return version == 4 ? trie4_.find(key4(address)) : trie6_.find(key6(address));
  }

  // Of one list, both families; any thread.
  [[nodiscard]] size_t entries(uint8_t list) const {
    return counts_[list].load(std::memory_order_relaxed);
  }
  [[nodiscard]] size_t entries() const { return trie4_.entries() + trie6_.entries(); }
  [[nodiscard]] size_t memory_bytes() const {
    return trie4_.memory_bytes() + trie6_.memory_bytes();
  }

 private:
  static PrefixKey key4(const uint8_t* at);
  static PrefixKey key6(const uint8_t* at);
  template <class Trie>
  Result add_to(Trie& trie, PrefixKey key, unsigned bits, uint8_t list);
  template <class Trie>
  Result remove_from(Trie& trie, PrefixKey key, unsigned bits, uint8_t list);

  PrefixTrie<false> trie4_;
  PrefixTrie<true> trie6_;
  std::array<std::atomic<size_t>, 3> counts_{};  // by list
};

inline PrefixKey PrefixTable::key4(const uint8_t* at) {
  return {uint64_t{wire::load32(at)} << 32, 0};
}

inline PrefixKey PrefixTable::key6(const uint8_t* at) {
  return {uint64_t{wire::load32(at)} << 32 | wire::load32(at + 4),
          uint64_t{wire::load32(at + 8)} << 32 | wire::load32(at + 12)};
}

}  // namespace apo
