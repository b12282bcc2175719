// A set of prefixes of one address family with longest-prefix match: one writer, any number of
// readers, no lock on the readers' side, changes visible at once.
//
// The shape: a direct table over the first 16 bits, below it a radix tree of four bits a node with
// path compression, so an address is found in about log16(entries) steps whatever its length. A
// slot is one 64-bit word that is read and written whole:
//
//   bits 0-1    what hangs below: nothing, a leaf (one prefix), a node, a node with skipped bits
//   bits 2-3    the listing of the longest prefix that ends in this node and covers the slot
//   bits 4-63   the leaf or node: an index in the upper half; an IPv4 leaf lies here itself
//
// A node keeps, for the writer alone, the listings of all prefixes that end in it (as a heap: 2
// prefixes of one bit, 4 of two, 8, 16), from which slots are computed anew after a removal.
//
// Readers: nodes are filled before a slot points to them, and a removed one keeps its contents
// until it is used again. Before removed ones are used again the epoch moves on, and a reader that
// finds it changed looks once more; so a reader never has to say that it is there.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <vector>

namespace apo {

// An address's or prefix's bits from the left; IPv4 takes the upper half of `high`.
struct PrefixKey {
  uint64_t high = 0;
  uint64_t low = 0;
  [[nodiscard]] bool operator==(const PrefixKey& other) const = default;
};

// Objects by index, in chunks that never move. Used again only after `recycle`.
template <class T, size_t kMost>
class TrieArena {
 public:
  static constexpr size_t kPerChunk = 16'384;
  // Removed objects wait until there are so many: each use of them lets readers look twice.
  static constexpr size_t kRecycleAt = 1024;

  TrieArena() = default;
  ~TrieArena() {
    for (auto& chunk : chunks_) operator delete(chunk.load(), std::align_val_t(kAlignment));
  }
  TrieArena(const TrieArena&) = delete;
  TrieArena& operator=(const TrieArena&) = delete;

  [[nodiscard]] T& at(uint32_t index) const {
    return chunks_[index / kPerChunk].load(std::memory_order_acquire)[index % kPerChunk];
  }
  [[nodiscard]] size_t ready() const { return free_.size() + (capacity_ - next_); }
  [[nodiscard]] size_t removed() const { return removed_.size(); }
  [[nodiscard]] size_t bytes() const { return capacity_ * sizeof(T); }

  // False: no memory, or the bound is reached.
  [[nodiscard]] bool grow() {
    const size_t chunk = capacity_ / kPerChunk;
    if (chunk == chunks_.size()) return false;
    void* memory = operator new(kPerChunk * sizeof(T), std::align_val_t(kAlignment), std::nothrow);
    if (memory == nullptr) return false;
    chunks_[chunk].store(static_cast<T*>(memory), std::memory_order_release);
    capacity_ += kPerChunk;
    return true;
  }
  // Only when `ready` says so.
  [[nodiscard]] uint32_t take() {
    if (free_.empty()) return next_++;
    const uint32_t index = free_.back();
    free_.pop_back();
    return index;
  }
  void remove(uint32_t index) { removed_.push_back(index); }
  // Removed objects may be used again: the epoch has moved on.
  void recycle() {
    free_.insert(free_.end(), removed_.begin(), removed_.end());
    removed_.clear();
  }

 private:
  static constexpr size_t kAlignment = 128;

  std::array<std::atomic<T*>, (kMost + 2 * kRecycleAt) / kPerChunk + 1> chunks_{};
  size_t capacity_ = 0;
  uint32_t next_ = 0;
  std::vector<uint32_t> free_;
  std::vector<uint32_t> removed_;
};

template <bool kVersion6>
class PrefixTrie {
 public:
  static constexpr unsigned kBits = kVersion6 ? 128 : 32;
  static constexpr size_t kEntriesMax = 2'000'000;

  // The listing (never 0 for a prefix in the set) of the longest prefix that holds the address; 0:
  // none does. Any thread.
  [[nodiscard]] uint8_t find(PrefixKey address) const {
    if (entries_.load(std::memory_order_acquire) == 0) return 0;
    return search(address);
  }

  // The rest is the writer's. A prefix is its key, zero behind its bits, and their number.

  // The listing of exactly this prefix; 0: not in the set.
  [[nodiscard]] uint8_t get(PrefixKey key, unsigned bits) const;
  // Adds bits to a prefix's listing; what it was before. nullopt: no memory, nothing changed. The
  // caller holds the number of entries to kEntriesMax.
  std::optional<uint8_t> add(PrefixKey key, unsigned bits, uint8_t listing);
  // Takes bits from it; what it was before. A prefix without any is out of the set.
  uint8_t remove(PrefixKey key, unsigned bits, uint8_t listing);

  [[nodiscard]] size_t entries() const { return entries_.load(std::memory_order_relaxed); }
  [[nodiscard]] size_t memory_bytes() const;

 private:
  static constexpr unsigned kRootBits = 16;
  static constexpr unsigned kStride = 4;
  static constexpr size_t kRootSlots = size_t{1} << kRootBits;

  enum Kind : uint64_t { kNothing = 0, kLeaf = 1, kNode = 2, kFarNode = 3 };

  struct alignas(128) Node {
    uint64_t slots[1 << kStride];
  };
  struct NodeHeader {
    uint64_t key_high;  // the bits that all below share
    uint64_t key_low;
    uint64_t depth;     // how many those are
    uint64_t listings;  // two bits a heap place; the writer's
  };
  struct LeafRecord {  // IPv6
    uint64_t key_high;
    uint64_t key_low;
    uint64_t bits_and_listing;
  };
  struct Root {
    uint64_t slots[kRootSlots];
    uint8_t listings[2 * kRootSlots];  // of the prefixes that end here, as a heap; the writer's
  };
  struct Leaf {
    PrefixKey key;
    unsigned bits = 0;
    uint8_t listing = 0;
  };
  // Where a prefix is, or would be.
  struct Place {
    uint64_t* slot = nullptr;    // that leads to it, or to where it would hang
    unsigned depth = kRootBits;  // bits from the left that the slot stands for
    uint64_t* above = nullptr;   // the slot that leads to the node which has `slot`
    unsigned above_depth = kRootBits;
    uint32_t node = 0;     // that has `slot`, when `above` is set
    bool in_node = false;  // the prefix ends in the node that `slot` leads to
  };

  [[nodiscard]] uint8_t search(PrefixKey address) const;
  [[nodiscard]] uint8_t walk(PrefixKey address) const;
  [[nodiscard]] Place locate(PrefixKey key, unsigned bits) const;
  [[nodiscard]] Leaf leaf_of(uint64_t slot) const;
  [[nodiscard]] uint64_t leaf_slot(const Leaf& leaf);
  void drop_leaf(uint64_t slot);
  void relist_leaf(uint64_t* slot, const Leaf& leaf);
  [[nodiscard]] bool reserve();
  [[nodiscard]] uint32_t new_node(PrefixKey key, unsigned depth);
  void put(uint32_t node, const Leaf& leaf);
  void put_child(uint32_t node, uint32_t child);
  void split(const Place& place, uint32_t fresh);
  [[nodiscard]] uint8_t listing_in_node(uint32_t node, PrefixKey key, unsigned bits) const;
  void list_in_node(uint32_t node, PrefixKey key, unsigned bits, uint8_t listing);
  void list_in_root(PrefixKey key, unsigned bits, uint8_t listing);
  void cover_root(size_t place, uint8_t listing);
  void collapse(uint64_t* slot, unsigned depth, uint32_t node);
  [[nodiscard]] uint8_t get_short(PrefixKey key, unsigned bits) const;
  void set_short(PrefixKey key, unsigned bits, uint8_t listing);

  std::atomic<size_t> entries_{0};
  std::atomic<uint32_t> epoch_{0};
  std::atomic<uint8_t> everything_{0};  // the listing of the prefix of no bits
  std::unique_ptr<Root> root_;          // made with the first entry
  TrieArena<Node, kEntriesMax> nodes_;
  TrieArena<NodeHeader, kEntriesMax> headers_;  // of the nodes, by the same index
  TrieArena<LeafRecord, kVersion6 ? kEntriesMax : 1> leaves_;
};

extern template class PrefixTrie<false>;
extern template class PrefixTrie<true>;

}  // namespace apo
