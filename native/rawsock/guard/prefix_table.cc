#include "guard/prefix_table.h"

namespace apo {
namespace {

PrefixKey without_host_bits(PrefixKey key, unsigned bits) {
  if (bits == 0) return {};
  if (bits <= 64) return {key.high & ~uint64_t{0} << (64 - bits), 0};
  return {key.high, key.low & ~uint64_t{0} << (128 - bits)};
}

bool is_valid(const IpPrefix& prefix) {
  const uint8_t version = prefix.address.version;
  return (version == 4 && prefix.prefix_bits <= 32) || (version == 6 && prefix.prefix_bits <= 128);
}

}  // namespace

template <class Trie>
PrefixTable::Result PrefixTable::add_to(Trie& trie, PrefixKey key, unsigned bits, uint8_t list) {
  key = without_host_bits(key, bits);
  if (entries() >= kEntriesMax && trie.get(key, bits) == 0) return Result::kFull;
  const auto before = trie.add(key, bits, list);
  if (!before) return Result::kNoMemory;
  if ((*before & list) != 0) return Result::kUnchanged;
  counts_[list].fetch_add(1, std::memory_order_relaxed);
  return Result::kDone;
}

template <class Trie>
PrefixTable::Result PrefixTable::remove_from(Trie& trie, PrefixKey key, unsigned bits,
                                             uint8_t list) {
  const uint8_t before = trie.remove(without_host_bits(key, bits), bits, list);
  if ((before & list) == 0) return Result::kUnchanged;
  counts_[list].fetch_sub(1, std::memory_order_relaxed);
  return Result::kDone;
}

PrefixTable::Result PrefixTable::add(const IpPrefix& prefix, uint8_t list) {
  if (!is_valid(prefix)) return Result::kInvalid;
  const uint8_t* at = prefix.address.bytes.data();
  return prefix.address.version == 4 ? add_to(trie4_, key4(at), prefix.prefix_bits, list)
                                     : add_to(trie6_, key6(at), prefix.prefix_bits, list);
}

PrefixTable::Result PrefixTable::remove(const IpPrefix& prefix, uint8_t list) {
  if (!is_valid(prefix)) return Result::kInvalid;
  const uint8_t* at = prefix.address.bytes.data();
  return prefix.address.version == 4 ? remove_from(trie4_, key4(at), prefix.prefix_bits, list)
                                     : remove_from(trie6_, key6(at), prefix.prefix_bits, list);
}

}  // namespace apo
