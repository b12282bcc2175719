// A hash table of bounded size that remembers the order in which its entries came, for what the
// network makes us remember: the oldest is found, and forgotten, in constant time. All memory is
// taken at construction.
//
// The hash is the caller's and must be keyed: with one that outsiders can predict they would fill a
// single chain.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace apo {

template <typename Key, typename Value>
class FifoTable {
 public:
  using Index = uint16_t;
  static constexpr Index kNone = 0xffff;
  static constexpr size_t kCapacityMax = 0xfffe;

  explicit FifoTable(size_t capacity)
      : entries_(capacity < kCapacityMax ? capacity : kCapacityMax),
        chains_(std::bit_ceil(entries_.size() * 2 + 1), kNone) {
    for (size_t i = 0; i < entries_.size(); ++i) {
      entries_[i].chain_next = i + 1 < entries_.size() ? static_cast<Index>(i + 1) : kNone;
    }
    free_ = entries_.empty() ? kNone : 0;
  }

  [[nodiscard]] size_t size() const { return size_; }
  [[nodiscard]] bool full() const { return free_ == kNone; }
  // The entry that came first, and the one that came after another.
  [[nodiscard]] Index oldest() const { return oldest_; }
  [[nodiscard]] Index newer_than(Index at) const { return entries_[at].newer; }
  [[nodiscard]] const Key& key(Index at) const { return entries_[at].key; }
  [[nodiscard]] Value& value(Index at) { return entries_[at].value; }
  [[nodiscard]] const Value& value(Index at) const { return entries_[at].value; }

  [[nodiscard]] Index find(const Key& key, uint32_t hash) const {
    for (Index at = chains_[hash & (chains_.size() - 1)]; at != kNone;
         at = entries_[at].chain_next) {
      if (entries_[at].hash == hash && entries_[at].key == key) return at;
    }
    return kNone;
  }

  // Adds a key that is not in it yet, as the newest entry; kNone when the table is full.
  [[nodiscard]] Index insert(const Key& key, uint32_t hash) {
    if (full()) return kNone;
    const Index at = free_;
    Entry& entry = entries_[at];
    free_ = entry.chain_next;
    Index& chain = chains_[hash & (chains_.size() - 1)];
    entry.chain_next = chain;
    chain = at;
    entry.key = key;
    entry.hash = hash;
    entry.value = Value{};
    entry.older = newest_;
    entry.newer = kNone;
    (newest_ == kNone ? oldest_ : entries_[newest_].newer) = at;
    newest_ = at;
    ++size_;
    return at;
  }

  void erase(Index at) {
    Entry& entry = entries_[at];
    Index* link = &chains_[entry.hash & (chains_.size() - 1)];
    while (*link != at) link = &entries_[*link].chain_next;
    *link = entry.chain_next;
    (entry.older == kNone ? oldest_ : entries_[entry.older].newer) = entry.newer;
    (entry.newer == kNone ? newest_ : entries_[entry.newer].older) = entry.older;
    entry.chain_next = free_;
    free_ = at;
    --size_;
  }

 private:
  struct Entry {
    Key key{};
    Value value{};
    uint32_t hash = 0;
    Index chain_next = kNone;  // of its chain, or of the free list
    Index older = kNone;
    Index newer = kNone;
  };

  std::vector<Entry> entries_;
  std::vector<Index> chains_;
  size_t size_ = 0;
  Index free_ = kNone;
  Index oldest_ = kNone;
  Index newest_ = kNone;
};

}  // namespace apo
