#include "guard/prefix_trie.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace apo {
namespace {

constexpr uint64_t kKindMask = 3;
constexpr unsigned kCoverShift = 2;
constexpr uint64_t kCoverMask = uint64_t{3} << kCoverShift;
constexpr unsigned kLeafBitsShift = 4;
constexpr unsigned kLeafListingShift = 10;

uint64_t load(const uint64_t& word) {
  return std::atomic_ref<uint64_t>(const_cast<uint64_t&>(word)).load(std::memory_order_acquire);
}

void store(uint64_t& word, uint64_t value) {
  std::atomic_ref<uint64_t>(word).store(value, std::memory_order_release);
}

uint64_t kind_of(uint64_t slot) { return slot & kKindMask; }
uint8_t cover_of(uint64_t slot) { return static_cast<uint8_t>((slot & kCoverMask) >> kCoverShift); }
uint32_t index_of(uint64_t slot) { return static_cast<uint32_t>(slot >> 32); }

// What hangs below is replaced, the covering listing stays; or the other way round.
void hang(uint64_t& slot, uint64_t below) {
  store(slot, (load(slot) & kCoverMask) | (below & ~kCoverMask));
}
void cover(uint64_t& slot, uint8_t listing) {
  store(slot, (load(slot) & ~kCoverMask) | uint64_t{listing} << kCoverShift);
}

unsigned nibble(PrefixKey key, unsigned depth) {
  const uint64_t word = depth < 64 ? key.high >> (60 - depth) : key.low >> (124 - depth);
  return static_cast<unsigned>(word & 15);
}

bool same_bits(PrefixKey a, PrefixKey b, unsigned bits) {
  if (bits == 0) return true;
  if (bits <= 64) return (a.high ^ b.high) >> (64 - bits) == 0;
  return a.high == b.high && (a.low ^ b.low) >> (128 - bits) == 0;
}

unsigned common_bits(PrefixKey a, PrefixKey b) {
  if (a.high != b.high) return static_cast<unsigned>(std::countl_zero(a.high ^ b.high));
  return 64 + static_cast<unsigned>(std::countl_zero(a.low ^ b.low));
}

PrefixKey first_bits(PrefixKey key, unsigned bits) {
  if (bits == 0) return {};
  if (bits <= 64) return {key.high & ~uint64_t{0} << (64 - bits), 0};
  return {key.high, key.low & ~uint64_t{0} << (128 - bits)};
}

// The node in which a prefix ends begins at a multiple of four bits, at least one bit before its
// end.
unsigned depth_for_end(unsigned bits) { return (bits - 1) / 4 * 4; }

// The place of a prefix of `bits` more bits than its node's depth, in the heap of those.
unsigned heap_place(PrefixKey key, unsigned depth, unsigned bits) {
  return (1u << bits) + (nibble(key, depth) >> (4 - bits));
}

uint8_t heap_listing(uint64_t listings, unsigned place) {
  return static_cast<uint8_t>(listings >> (2 * place) & 3);
}

}  // namespace

template <bool kVersion6>
uint8_t PrefixTrie<kVersion6>::search(PrefixKey address) const {
  for (;;) {
    const uint32_t epoch = epoch_.load(std::memory_order_acquire);
    const uint8_t listing = walk(address);
    if (epoch_.load(std::memory_order_relaxed) == epoch) return listing;
  }
}

// Always ends, also among nodes that are being used again: the depth grows with every step.
template <bool kVersion6>
uint8_t PrefixTrie<kVersion6>::walk(PrefixKey address) const {
  uint8_t found = everything_.load(std::memory_order_acquire);
  uint64_t slot = load(root_->slots[address.high >> (64 - kRootBits)]);
  unsigned depth = kRootBits;
  for (;;) {
    if (cover_of(slot) != 0) found = cover_of(slot);
    if (kind_of(slot) == kNothing) return found;
    if (kind_of(slot) == kLeaf) {
      const Leaf leaf = leaf_of(slot);
      return same_bits(leaf.key, address, leaf.bits) ? leaf.listing : found;
    }
    const uint32_t node = index_of(slot);
    if (kind_of(slot) == kFarNode) {
      const NodeHeader& header = headers_.at(node);
      const uint64_t below = load(header.depth);
      if (below < depth || below >= kBits) return found;
      depth = static_cast<unsigned>(below);
      const PrefixKey key{load(header.key_high), load(header.key_low)};
      if (!same_bits(key, address, depth)) return found;
    }
    if (depth >= kBits) return found;
    slot = load(nodes_.at(node).slots[nibble(address, depth)]);
    depth += kStride;
  }
}

template <bool kVersion6>
typename PrefixTrie<kVersion6>::Leaf PrefixTrie<kVersion6>::leaf_of(uint64_t slot) const {
  if constexpr (kVersion6) {
    const LeafRecord& record = leaves_.at(index_of(slot));
    const uint64_t bits_and_listing = load(record.bits_and_listing);
    return {{load(record.key_high), load(record.key_low)},
            static_cast<unsigned>(bits_and_listing >> 8) & 0xff,
            static_cast<uint8_t>(bits_and_listing & 3)};
  } else {
    return {{slot & ~uint64_t{0} << 32, 0},
            static_cast<unsigned>(slot >> kLeafBitsShift & 0x3f),
            static_cast<uint8_t>(slot >> kLeafListingShift & 3)};
  }
}

template <bool kVersion6>
uint64_t PrefixTrie<kVersion6>::leaf_slot(const Leaf& leaf) {
  if constexpr (kVersion6) {
    const uint32_t index = leaves_.take();
    LeafRecord& record = leaves_.at(index);
    store(record.key_high, leaf.key.high);
    store(record.key_low, leaf.key.low);
    store(record.bits_and_listing, uint64_t{leaf.bits} << 8 | leaf.listing);
    return uint64_t{index} << 32 | kLeaf;
  } else {
    return leaf.key.high | uint64_t{leaf.listing} << kLeafListingShift |
           uint64_t{leaf.bits} << kLeafBitsShift | kLeaf;
  }
}

template <bool kVersion6>
void PrefixTrie<kVersion6>::drop_leaf(uint64_t slot) {
  if constexpr (kVersion6) leaves_.remove(index_of(slot));
}

template <bool kVersion6>
void PrefixTrie<kVersion6>::relist_leaf(uint64_t* slot, const Leaf& leaf) {
  if constexpr (kVersion6) {
    store(leaves_.at(index_of(*slot)).bits_and_listing, uint64_t{leaf.bits} << 8 | leaf.listing);
  } else {
    hang(*slot, leaf_slot(leaf));
  }
}

// Makes sure of the root, one node and two leaves: no change needs more.
template <bool kVersion6>
bool PrefixTrie<kVersion6>::reserve() {
  if (!root_) {
    root_.reset(new (std::nothrow) Root());
    if (!root_) return false;
  }
  const auto enough = [this] {
    return nodes_.ready() >= 1 && headers_.ready() >= 1 && (!kVersion6 || leaves_.ready() >= 2);
  };
  if (enough()) return true;
  using Nodes = decltype(nodes_);
  if (nodes_.removed() >= Nodes::kRecycleAt || leaves_.removed() >= Nodes::kRecycleAt) {
    epoch_.store(epoch_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    nodes_.recycle();
    headers_.recycle();
    leaves_.recycle();
  }
  if (nodes_.ready() < 1 && !nodes_.grow()) return false;
  if (headers_.ready() < 1 && !headers_.grow()) return false;
  if (kVersion6 && leaves_.ready() < 2 && !leaves_.grow()) return false;
  return enough();
}

// `key` is anything below the node.
template <bool kVersion6>
uint32_t PrefixTrie<kVersion6>::new_node(PrefixKey key, unsigned depth) {
  const uint32_t index = nodes_.take();
  (void)headers_.take();  // the same: both arenas are used alike
  const PrefixKey shared = first_bits(key, depth);
  NodeHeader& header = headers_.at(index);
  store(header.key_high, shared.high);
  store(header.key_low, shared.low);
  store(header.depth, depth);
  header.listings = 0;
  for (uint64_t& slot : nodes_.at(index).slots) store(slot, 0);
  return index;
}

// Puts a prefix into a fresh node with room for it: in itself, or as a leaf below.
template <bool kVersion6>
void PrefixTrie<kVersion6>::put(uint32_t node, const Leaf& leaf) {
  const auto depth = static_cast<unsigned>(headers_.at(node).depth);
  if (leaf.bits <= depth + kStride) {
    list_in_node(node, leaf.key, leaf.bits, leaf.listing);
  } else {
    hang(nodes_.at(node).slots[nibble(leaf.key, depth)], leaf_slot(leaf));
  }
}

template <bool kVersion6>
void PrefixTrie<kVersion6>::put_child(uint32_t node, uint32_t child) {
  const NodeHeader& header = headers_.at(node);
  const NodeHeader& below = headers_.at(child);
  const auto depth = static_cast<unsigned>(header.depth);
  const uint64_t kind = below.depth == depth + kStride ? kNode : kFarNode;
  hang(nodes_.at(node).slots[nibble({below.key_high, below.key_low}, depth)],
       uint64_t{child} << 32 | kind);
}

template <bool kVersion6>
void PrefixTrie<kVersion6>::split(const Place& place, uint32_t fresh) {
  const uint64_t kind = headers_.at(fresh).depth == place.depth ? kNode : kFarNode;
  hang(*place.slot, uint64_t{fresh} << 32 | kind);
}

template <bool kVersion6>
uint8_t PrefixTrie<kVersion6>::listing_in_node(uint32_t node, PrefixKey key, unsigned bits) const {
  const NodeHeader& header = headers_.at(node);
  const auto depth = static_cast<unsigned>(header.depth);
  return heap_listing(header.listings, heap_place(key, depth, bits - depth));
}

// 0 takes the prefix out. The slots that it covers are computed anew.
template <bool kVersion6>
void PrefixTrie<kVersion6>::list_in_node(uint32_t node, PrefixKey key, unsigned bits,
                                         uint8_t listing) {
  NodeHeader& header = headers_.at(node);
  const auto depth = static_cast<unsigned>(header.depth);
  const unsigned place = heap_place(key, depth, bits - depth);
  header.listings &= ~(uint64_t{3} << (2 * place));
  header.listings |= uint64_t{listing} << (2 * place);
  const unsigned count = 1u << (depth + kStride - bits);
  const unsigned first = nibble(key, depth) & ~(count - 1);
  for (unsigned at = first; at < first + count; ++at) {
    uint8_t longest = 0;
    for (unsigned length = kStride; length > 0 && longest == 0; --length) {
      longest = heap_listing(header.listings, (1u << length) + (at >> (kStride - length)));
    }
    cover(nodes_.at(node).slots[at], longest);
  }
}

template <bool kVersion6>
void PrefixTrie<kVersion6>::list_in_root(PrefixKey key, unsigned bits, uint8_t listing) {
  const size_t place = (size_t{1} << bits) + (key.high >> (64 - bits));
  root_->listings[place] = listing;
  for (size_t above = place / 2; listing == 0 && above > 0; above /= 2) {
    listing = root_->listings[above];
  }
  cover_root(place, listing);
}

// The slots of one place in the heap, but for those that longer prefixes cover.
template <bool kVersion6>
void PrefixTrie<kVersion6>::cover_root(size_t place, uint8_t listing) {
  if (place >= kRootSlots) {
    cover(root_->slots[place - kRootSlots], listing);
    return;
  }
  for (const size_t below : {2 * place, 2 * place + 1}) {
    if (root_->listings[below] == 0) cover_root(below, listing);
  }
}

template <bool kVersion6>
uint8_t PrefixTrie<kVersion6>::get_short(PrefixKey key, unsigned bits) const {
  if (bits == 0) return everything_.load(std::memory_order_relaxed);
  return root_->listings[(size_t{1} << bits) + (key.high >> (64 - bits))];
}

template <bool kVersion6>
void PrefixTrie<kVersion6>::set_short(PrefixKey key, unsigned bits, uint8_t listing) {
  if (bits == 0) {
    everything_.store(listing, std::memory_order_release);
  } else {
    list_in_root(key, bits, listing);
  }
}

// Goes down as far as the prefix (of more bits than the root has) agrees with what is there.
template <bool kVersion6>
typename PrefixTrie<kVersion6>::Place PrefixTrie<kVersion6>::locate(PrefixKey key,
                                                                    unsigned bits) const {
  Place place;
  place.slot = &root_->slots[key.high >> (64 - kRootBits)];
  while (kind_of(*place.slot) >= kNode) {
    const uint32_t node = index_of(*place.slot);
    const NodeHeader& header = headers_.at(node);
    const auto depth = static_cast<unsigned>(header.depth);
    if (bits <= depth || !same_bits({header.key_high, header.key_low}, key, depth)) break;
    if (bits <= depth + kStride) {
      place.in_node = true;
      break;
    }
    place.above = place.slot;
    place.above_depth = place.depth;
    place.node = node;
    place.slot = &nodes_.at(node).slots[nibble(key, depth)];
    place.depth = depth + kStride;
  }
  return place;
}

template <bool kVersion6>
uint8_t PrefixTrie<kVersion6>::get(PrefixKey key, unsigned bits) const {
  if (!root_) return 0;
  if (bits <= kRootBits) return get_short(key, bits);
  const Place place = locate(key, bits);
  if (place.in_node) return listing_in_node(index_of(*place.slot), key, bits);
  if (kind_of(*place.slot) != kLeaf) return 0;
  const Leaf leaf = leaf_of(*place.slot);
  return leaf.bits == bits && leaf.key == key ? leaf.listing : 0;
}

template <bool kVersion6>
std::optional<uint8_t> PrefixTrie<kVersion6>::add(PrefixKey key, unsigned bits, uint8_t listing) {
  if (!reserve()) return std::nullopt;
  uint8_t before = 0;
  if (bits <= kRootBits) {
    before = get_short(key, bits);
    set_short(key, bits, before | listing);
  } else if (const Place place = locate(key, bits); place.in_node) {
    const uint32_t node = index_of(*place.slot);
    before = listing_in_node(node, key, bits);
    list_in_node(node, key, bits, before | listing);
  } else if (kind_of(*place.slot) == kNothing) {
    hang(*place.slot, leaf_slot({key, bits, listing}));
  } else if (kind_of(*place.slot) == kLeaf) {
    const uint64_t slot = *place.slot;
    Leaf leaf = leaf_of(slot);
    if (leaf.bits == bits && leaf.key == key) {
      before = leaf.listing;
      leaf.listing |= listing;
      relist_leaf(place.slot, leaf);
    } else {
      // A node above both: it begins before they part, and before the shorter one ends.
      const unsigned depth = std::min({common_bits(leaf.key, key) / kStride * kStride,
                                       depth_for_end(bits), depth_for_end(leaf.bits)});
      const uint32_t fresh = new_node(key, depth);
      const bool ends_here = leaf.bits <= depth + kStride;
      if (ends_here) {
        put(fresh, leaf);
      } else {
        hang(nodes_.at(fresh).slots[nibble(leaf.key, depth)], slot);
      }
      put(fresh, {key, bits, listing});
      split(place, fresh);
      if (ends_here) drop_leaf(slot);
    }
  } else {
    // A node above the one that is there: the prefix ends before it, or leads elsewhere.
    const uint32_t there = index_of(*place.slot);
    const NodeHeader& header = headers_.at(there);
    const unsigned common = common_bits({header.key_high, header.key_low}, key) / kStride * kStride;
    const uint32_t fresh = new_node(key, std::min(common, depth_for_end(bits)));
    put_child(fresh, there);
    put(fresh, {key, bits, listing});
    split(place, fresh);
  }
  if (before == 0) entries_.store(entries() + 1, std::memory_order_release);
  return before;
}

template <bool kVersion6>
uint8_t PrefixTrie<kVersion6>::remove(PrefixKey key, unsigned bits, uint8_t listing) {
  if (!root_) return 0;
  uint8_t before = 0;
  if (bits <= kRootBits) {
    before = get_short(key, bits);
    if (before != 0) set_short(key, bits, static_cast<uint8_t>(before & ~listing));
  } else if (const Place place = locate(key, bits); place.in_node) {
    const uint32_t node = index_of(*place.slot);
    before = listing_in_node(node, key, bits);
    list_in_node(node, key, bits, static_cast<uint8_t>(before & ~listing));
    if (before != 0 && (before & ~listing) == 0) collapse(place.slot, place.depth, node);
  } else if (kind_of(*place.slot) == kLeaf) {
    const uint64_t slot = *place.slot;
    Leaf leaf = leaf_of(slot);
    if (leaf.bits != bits || !(leaf.key == key)) return 0;
    before = leaf.listing;
    leaf.listing = static_cast<uint8_t>(before & ~listing);
    if (leaf.listing != 0) {
      relist_leaf(place.slot, leaf);
    } else {
      hang(*place.slot, kNothing);
      drop_leaf(slot);
      if (place.above != nullptr) collapse(place.above, place.above_depth, place.node);
    }
  }
  if (before != 0 && (before & ~listing) == 0) {
    entries_.store(entries() - 1, std::memory_order_release);
  }
  return before;
}

// A node that holds one thing only gives way to it: so there are never more nodes than entries. (It
// stays when there is no memory for a leaf; the next removal below it tries again.)
template <bool kVersion6>
void PrefixTrie<kVersion6>::collapse(uint64_t* slot, unsigned depth, uint32_t node) {
  const NodeHeader& header = headers_.at(node);
  const int ending = std::popcount((header.listings | header.listings >> 1) & 0x5555555555555555u);
  if (ending > 1) return;
  uint64_t below = 0;
  int hanging = 0;
  for (const uint64_t& child : nodes_.at(node).slots) {
    if (kind_of(child) == kNothing) continue;
    below = child;
    if (++hanging + ending > 1) return;
  }
  if (ending == 1) {
    if (!reserve()) return;
    const auto place = static_cast<unsigned>(std::countr_zero(header.listings)) / 2;
    const unsigned bits = static_cast<unsigned>(std::bit_width(place)) - 1;
    const auto node_depth = static_cast<unsigned>(header.depth);
    PrefixKey key{header.key_high, header.key_low};
    const uint64_t last = uint64_t{place - (1u << bits)} << (kStride - bits);
    (node_depth < 64 ? key.high : key.low) |= last << ((node_depth < 64 ? 60 : 124) - node_depth);
    below = leaf_slot({key, node_depth + bits, heap_listing(header.listings, place)});
  } else if (kind_of(below) >= kNode) {
    const uint64_t kind = headers_.at(index_of(below)).depth == depth ? kNode : kFarNode;
    below = (below & ~kKindMask) | kind;
  }
  hang(*slot, below);
  nodes_.remove(node);
  headers_.remove(node);
}

template <bool kVersion6>
size_t PrefixTrie<kVersion6>::memory_bytes() const {
  return (root_ ? sizeof(Root) : 0) + nodes_.bytes() + headers_.bytes() + leaves_.bytes();
}

template class PrefixTrie<false>;
template class PrefixTrie<true>;

}  // namespace apo
