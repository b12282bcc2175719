#include "ip/reassembly.h"

#include <algorithm>
#include <cstring>

#include "wire/byte_order.h"
#include "wire/checksum.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace apo {
namespace {

constexpr size_t kLengthMax = 65'535;
constexpr uint8_t kEcnNotCapable = 0, kEcnCongestion = 3;

constexpr uint8_t ecn_bit(uint8_t ecn) { return static_cast<uint8_t>(1u << ecn); }

// What a fragment is refused for that cannot be kept whatever the others say.
LinkCounter reason_of(FragmentFacts::State state) {
  if (state == FragmentFacts::State::kBadLength) return LinkCounter::kRxDroppedFragmentLength;
  if (state == FragmentFacts::State::kTooLong) return LinkCounter::kRxDroppedFragmentTooLong;
  return LinkCounter::kRxDroppedFragmentTiny;
}

// The error that RFC 8200 4.5 (and 7112 5) asks for; IPv4 has none.
IcmpError error_of(const FragmentFacts& facts) {
  if (facts.state == FragmentFacts::State::kIncompleteChain) {
    return {IcmpErrorKind::kIncompleteHeaderChain, 0};
  }
  if (facts.state == FragmentFacts::State::kBadLength) {
    return {IcmpErrorKind::kBadHeaderField, wire::ipv6_field::kPayloadLength};
  }
  return {IcmpErrorKind::kBadHeaderField, facts.split_bytes + 2u};
}

size_t blocks_for(size_t bytes) {
  return (bytes + Reassembler::kBlockBytes - 1) / Reassembler::kBlockBytes;
}

}  // namespace

Reassembler::Reassembler(SteerKey key, LinkCounters counters, const ReassemblyLimits& limits)
    : key_(key),
      counters_(counters),
      limits_(limits),
      four_(limits.datagrams),
      six_(limits.datagrams),
      sources_(limits.datagrams),
      block_count_(std::min<size_t>(limits.bytes / kBlockBytes, kNone - 1)) {
  four_.timeout_us = limits.ipv4_timeout_us;
  six_.timeout_us = limits.ipv6_timeout_us;
  memory_ = std::make_unique_for_overwrite<uint8_t[]>(block_count_ * kBlockBytes);
  blocks_ = std::make_unique<Block[]>(block_count_);
  out_ = std::make_unique_for_overwrite<uint8_t[]>(kOutBytes);
  for (size_t i = block_count_; i > 0; --i) {
    blocks_[i - 1].next = free_block_;
    free_block_ = static_cast<uint16_t>(i - 1);
  }
}

Reassembler::Result Reassembler::add(std::span<const uint8_t> packet, uint64_t now_us) {
  const FragmentFacts facts = read_fragment(packet);
  if (facts.state == FragmentFacts::State::kNotFragment) return {};
  if (facts.state != FragmentFacts::State::kFragment) {
    Result refused = refuse(reason_of(facts.state));
    refused.has_error = facts.version == 6 && !facts.data.empty();
    if (refused.has_error) refused.error = error_of(facts);
    return refused;
  }
  const uint16_t at = find_or_make(facts, now_us);
  if (at == kNone) return refuse(LinkCounter::kRxDroppedFragmentMemory);
  Datagram& datagram = family(facts.version).datagrams.value(at);
  if (datagram.is_void) return refuse(datagram.void_reason);
  if (contradicts(datagram, facts)) {
    return make_void(facts.version, at, LinkCounter::kRxDroppedFragmentMismatch);
  }
  const Place place = place_of(datagram, facts);
  if (place.duplicate) return refuse(LinkCounter::kRxDroppedFragmentDuplicate);
  if (place.overlaps) {
    return make_void(facts.version, at, LinkCounter::kRxDroppedFragmentOverlap);
  }
  if (datagram.fragments >= limits_.fragments_per_datagram) {
    return make_void(facts.version, at, LinkCounter::kRxDroppedFragmentTooMany);
  }
  if (!make_room(facts.version, at, blocks_for(facts.data.size() + skip_of(facts)))) {
    evict(facts.version, at, LinkCounter::kRxDroppedFragmentMemory);
    return refuse(LinkCounter::kRxDroppedFragmentMemory);
  }
  insert(datagram, facts, place);
  if (datagram.has_total && datagram.received == datagram.total) {
    return complete(facts.version, at);
  }
  Result waiting;
  waiting.outcome = Outcome::kWaiting;
  return waiting;
}

size_t Reassembler::skip_of(const FragmentFacts& facts) {
  return facts.offset == 0 ? facts.header_bytes() : 0;
}

uint16_t Reassembler::find_or_make(const FragmentFacts& facts, uint64_t now_us) {
  const size_t address_bytes = facts.version == 4 ? 4 : 16;
  DatagramKey key;
  std::memcpy(key.source.data(), facts.source, address_bytes);
  std::memcpy(key.destination.data(), facts.destination, address_bytes);
  key.identification = facts.identification;
  key.protocol = facts.protocol;
  Family& own = family(facts.version);
  const uint32_t hash = hash_of(key, address_bytes);
  uint16_t at = own.datagrams.find(key, hash);
  if (at != kNone) return at;

  SourceKey source_key;
  source_key.version = facts.version;
  std::memcpy(source_key.prefix.data(), facts.source, std::min<size_t>(address_bytes, 8));
  const uint32_t source_hash = hash_of(source_key);
  uint16_t source = sources_.find(source_key, source_hash);
  if (source != kNone && sources_.value(source).datagrams >= limits_.datagrams_per_source) {
    evict(facts.version, sources_.value(source).oldest, LinkCounter::kRxDroppedFragmentMemory);
  }
  if (waiting_datagrams() >= limits_.datagrams) {
    const auto [version, victim] = oldest(false);
    evict(version, victim, LinkCounter::kRxDroppedFragmentMemory);
  }
  // What was evicted may have been the last of this source.
  source = sources_.find(source_key, source_hash);
  if (source == kNone) source = sources_.insert(source_key, source_hash);
  if (source == kNone) return kNone;
  at = own.datagrams.insert(key, hash);
  if (at == kNone) {
    if (sources_.value(source).datagrams == 0) sources_.erase(source);
    return kNone;
  }
  Datagram& datagram = own.datagrams.value(at);
  datagram.deadline_us = now_us + own.timeout_us;
  Source& owner = sources_.value(source);
  datagram.source = source;
  datagram.source_older = owner.newest;
  (owner.newest == kNone ? owner.oldest : own.datagrams.value(owner.newest).source_newer) = at;
  owner.newest = at;
  ++owner.datagrams;
  return at;
}

bool Reassembler::contradicts(const Datagram& datagram, const FragmentFacts& facts) const {
  const uint8_t ecn = datagram.ecn_seen | ecn_bit(facts.ecn);
  if ((ecn & ecn_bit(kEcnNotCapable)) != 0 && (ecn & ecn_bit(kEcnCongestion)) != 0) return true;
  if (datagram.has_total) {
    return facts.more ? facts.end() >= datagram.total : facts.end() != datagram.total;
  }
  if (facts.more || datagram.last == kNone) return false;
  const Block& last = blocks_[datagram.last];
  return last.offset + last.length >= facts.end();
}

Reassembler::Place Reassembler::place_of(const Datagram& datagram,
                                         const FragmentFacts& facts) const {
  Place place;
  if (datagram.last == kNone) return place;
  const Block& last = blocks_[datagram.last];
  if (facts.offset >= last.offset + last.length) {  // in order, as nearly all come
    place.before = datagram.last;
    return place;
  }
  uint16_t after = datagram.first;
  while (blocks_[after].offset + blocks_[after].length <= facts.offset) {
    place.before = after;
    after = blocks_[after].next_fragment;
  }
  place.after = after;
  const Block& there = blocks_[after];
  if (there.offset >= facts.end()) return place;
  place.duplicate = there.offset == facts.offset && there.length == facts.data.size() &&
                    equals(after, facts.data);
  place.overlaps = !place.duplicate;
  return place;
}

bool Reassembler::make_room(uint8_t version, uint16_t at, size_t blocks) {
  Datagrams& datagrams = family(version).datagrams;
  const Source& source = sources_.value(datagrams.value(at).source);
  while (source.blocks + blocks > limits_.bytes_per_source / kBlockBytes) {
    uint16_t victim = source.oldest;
    while (victim != kNone && datagrams.value(victim).blocks == 0) {
      victim = datagrams.value(victim).source_newer;
    }
    // The source outlives this: the datagram at hand is one of its own.
    if (victim == kNone || victim == at) return false;
    evict(version, victim, LinkCounter::kRxDroppedFragmentMemory);
  }
  while (used_blocks_ + blocks > block_count_) {
    const auto [victim_version, victim] = oldest(true);
    if (victim == kNone || (victim == at && victim_version == version)) return false;
    evict(victim_version, victim, LinkCounter::kRxDroppedFragmentMemory);
  }
  return true;
}

void Reassembler::insert(Datagram& datagram, const FragmentFacts& facts, const Place& place) {
  const size_t skip = skip_of(facts);
  const uint16_t added = store(facts.packet.subspan(facts.header_bytes() - skip));
  Block& block = blocks_[added];
  block.skip = static_cast<uint16_t>(skip);
  block.length = static_cast<uint16_t>(facts.data.size());
  block.offset = facts.offset;
  block.next_fragment = place.after;
  (place.before == kNone ? datagram.first : blocks_[place.before].next_fragment) = added;
  if (place.after == kNone) datagram.last = added;
  const size_t blocks = blocks_for(facts.data.size() + skip);
  datagram.blocks += static_cast<uint16_t>(blocks);
  sources_.value(datagram.source).blocks += static_cast<uint32_t>(blocks);
  ++datagram.fragments;
  ++waiting_fragments_;
  datagram.ecn_seen |= ecn_bit(facts.ecn);
  datagram.received += static_cast<uint32_t>(facts.data.size());
  if (!facts.more) {
    datagram.has_total = true;
    datagram.total = facts.end();
  }
  if (facts.offset == 0) {
    datagram.split_bytes = facts.split_bytes;
    datagram.next_header_field = facts.next_header_field;
    datagram.next_header = facts.next_header;
  }
}

// Copies bytes (at least one) into blocks that `make_room` has found to be free.
uint16_t Reassembler::store(std::span<const uint8_t> bytes) {
  const uint16_t first = free_block_;
  uint16_t last = first;
  for (size_t at = 0; at < bytes.size(); at += kBlockBytes) {
    last = free_block_;
    free_block_ = blocks_[last].next;
    ++used_blocks_;
    std::memcpy(memory_.get() + last * kBlockBytes, bytes.data() + at,
                std::min(kBlockBytes, bytes.size() - at));
  }
  blocks_[last].next = kNone;
  return first;
}

bool Reassembler::equals(uint16_t fragment, std::span<const uint8_t> bytes) const {
  size_t skip = blocks_[fragment].skip;
  uint16_t block = fragment;
  for (; skip >= kBlockBytes; skip -= kBlockBytes) block = blocks_[block].next;
  for (size_t at = 0; at < bytes.size(); block = blocks_[block].next) {
    const size_t count = std::min(kBlockBytes - skip, bytes.size() - at);
    const uint8_t* stored = memory_.get() + block * kBlockBytes + skip;
    if (std::memcmp(stored, bytes.data() + at, count) != 0) return false;
    at += count;
    skip = 0;
  }
  return true;
}

size_t Reassembler::copy_out(uint16_t fragment, size_t skip, uint8_t* out) const {
  const size_t wanted = blocks_[fragment].skip + blocks_[fragment].length - skip;
  uint16_t block = fragment;
  for (; skip >= kBlockBytes; skip -= kBlockBytes) block = blocks_[block].next;
  for (size_t at = 0; at < wanted; block = blocks_[block].next) {
    const size_t count = std::min(kBlockBytes - skip, wanted - at);
    std::memcpy(out + at, memory_.get() + block * kBlockBytes + skip, count);
    at += count;
    skip = 0;
  }
  return wanted;
}

Reassembler::Result Reassembler::complete(uint8_t version, uint16_t at) {
  const Datagram& datagram = family(version).datagrams.value(at);
  const size_t split = datagram.split_bytes;
  const size_t length = split + datagram.total;
  const size_t counted = version == 4 ? length : length - wire::Ipv6View::kHeaderBytes;
  // The first fragment's header may be longer than those that were looked at alone.
  if (counted > kLengthMax) return make_void(version, at, LinkCounter::kRxDroppedFragmentTooLong);

  uint8_t* out = out_.get();
  // The first fragment's data are put in their place over its fragment header.
  (void)copy_out(datagram.first, 0, out);
  size_t written = split;
  for (uint16_t f = datagram.first; f != kNone; f = blocks_[f].next_fragment) {
    written += copy_out(f, blocks_[f].skip, out + written);
  }
  const bool congestion = (datagram.ecn_seen & ecn_bit(kEcnCongestion)) != 0;
  if (version == 4) {
    using namespace wire::ipv4_field;
    wire::store16(out + kTotalLength, static_cast<uint32_t>(length));
    wire::store16(out + kFragment, 0);
    if (congestion) out[kTrafficClass] |= kEcnCongestion;
    wire::store16(out + kChecksum, 0);
    wire::store16(out + kChecksum, wire::checksum_finish(wire::checksum_add(0, out, split)));
  } else {
    wire::store16(out + wire::ipv6_field::kPayloadLength, static_cast<uint32_t>(counted));
    out[datagram.next_header_field] = datagram.next_header;
    if (congestion) out[1] |= kEcnCongestion << 4;  // the traffic class straddles two bytes
  }
  counters_.add(LinkCounter::kRxReassembled);
  counters_.add(LinkCounter::kRxMerged, datagram.fragments - 1u);
  forget(version, at);
  Result result;
  result.outcome = Outcome::kComplete;
  result.datagram = {out, length};
  return result;
}

bool Reassembler::expire(uint64_t now_us, std::span<const uint8_t>& first_fragment) {
  first_fragment = {};
  for (const uint8_t version : {uint8_t{4}, uint8_t{6}}) {
    Datagrams& datagrams = family(version).datagrams;
    const uint16_t at = datagrams.oldest();
    if (at == kNone || datagrams.value(at).deadline_us > now_us) continue;
    const Datagram& datagram = datagrams.value(at);
    if (datagram.first != kNone && blocks_[datagram.first].offset == 0) {
      first_fragment = {out_.get(), copy_out(datagram.first, 0, out_.get())};
    }
    evict(version, at, LinkCounter::kRxDroppedFragmentTimeout);
    return true;
  }
  return false;
}

uint64_t Reassembler::next_deadline_us() const {
  uint64_t deadline_us = UINT64_MAX;
  for (const Family* own : {&four_, &six_}) {
    const uint16_t at = own->datagrams.oldest();
    if (at != kNone) deadline_us = std::min(deadline_us, own->datagrams.value(at).deadline_us);
  }
  return deadline_us;
}

void Reassembler::clear() {
  for (const uint8_t version : {uint8_t{4}, uint8_t{6}}) {
    while (family(version).datagrams.size() > 0) {
      evict(version, family(version).datagrams.oldest(), LinkCounter::kRxDroppedClosing);
    }
  }
}

Reassembler::Result Reassembler::refuse(LinkCounter reason) {
  counters_.add(reason);
  Result result;
  result.outcome = Outcome::kDropped;
  result.reason = reason;
  return result;
}

// Gives up a datagram, with the fragment that showed why it must be; what is left of it refuses
// those to come.
Reassembler::Result Reassembler::make_void(uint8_t version, uint16_t at, LinkCounter reason) {
  Datagram& datagram = family(version).datagrams.value(at);
  // When a last fragment has just completed a datagram that is too long, it is among those stored.
  const bool stored = datagram.has_total && datagram.received == datagram.total;
  counters_.add(reason, datagram.fragments + (stored ? 0u : 1u));
  release_fragments(datagram);
  datagram.is_void = true;
  datagram.void_reason = reason;
  Result result;
  result.outcome = Outcome::kDropped;
  result.reason = reason;
  return result;
}

void Reassembler::release_fragments(Datagram& datagram) {
  uint16_t fragment = datagram.first;
  while (fragment != kNone) {
    uint16_t last = fragment;
    while (blocks_[last].next != kNone) last = blocks_[last].next;
    blocks_[last].next = free_block_;
    free_block_ = fragment;
    fragment = blocks_[fragment].next_fragment;
  }
  used_blocks_ -= datagram.blocks;
  sources_.value(datagram.source).blocks -= datagram.blocks;
  waiting_fragments_ -= datagram.fragments;
  datagram.first = kNone;
  datagram.last = kNone;
  datagram.blocks = 0;
  datagram.fragments = 0;
}

void Reassembler::forget(uint8_t version, uint16_t at) {
  Datagrams& datagrams = family(version).datagrams;
  Datagram& datagram = datagrams.value(at);
  release_fragments(datagram);
  Source& source = sources_.value(datagram.source);
  (datagram.source_older == kNone ? source.oldest
                                  : datagrams.value(datagram.source_older).source_newer) =
      datagram.source_newer;
  (datagram.source_newer == kNone ? source.newest
                                  : datagrams.value(datagram.source_newer).source_older) =
      datagram.source_older;
  if (--source.datagrams == 0) sources_.erase(datagram.source);
  datagrams.erase(at);
}

void Reassembler::evict(uint8_t version, uint16_t at, LinkCounter reason) {
  counters_.add(reason, family(version).datagrams.value(at).fragments);
  forget(version, at);
}

std::pair<uint8_t, uint16_t> Reassembler::oldest(bool with_fragments) const {
  uint16_t found[2] = {kNone, kNone};
  for (int i = 0; i < 2; ++i) {
    const Datagrams& datagrams = (i == 0 ? four_ : six_).datagrams;
    found[i] = datagrams.oldest();
    while (with_fragments && found[i] != kNone && datagrams.value(found[i]).fragments == 0) {
      found[i] = datagrams.newer_than(found[i]);
    }
  }
  if (found[1] == kNone) return {4, found[0]};
  if (found[0] == kNone) return {6, found[1]};
  const uint64_t arrived4 = four_.datagrams.value(found[0]).deadline_us - four_.timeout_us;
  const uint64_t arrived6 = six_.datagrams.value(found[1]).deadline_us - six_.timeout_us;
  return arrived4 <= arrived6 ? std::pair{uint8_t{4}, found[0]} : std::pair{uint8_t{6}, found[1]};
}

uint32_t Reassembler::hash_of(const DatagramKey& key, size_t address_bytes) const {
  HalfSipHash hash(key_);
  for (size_t i = 0; i < address_bytes; i += 4) hash.add(wire::load32(key.source.data() + i));
  for (size_t i = 0; i < address_bytes; i += 4) hash.add(wire::load32(key.destination.data() + i));
  hash.add(key.identification);
  hash.add(key.protocol);
  return hash.finish();
}

uint32_t Reassembler::hash_of(const SourceKey& key) const {
  HalfSipHash hash(key_);
  hash.add(wire::load32(key.prefix.data()));
  hash.add(wire::load32(key.prefix.data() + 4));
  hash.add(key.version);
  return hash.finish();
}

}  // namespace apo
