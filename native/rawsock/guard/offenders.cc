#include "guard/offenders.h"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace apo {
namespace {

uint64_t load(const uint64_t& word) {
  return std::atomic_ref<uint64_t>(const_cast<uint64_t&>(word)).load(std::memory_order_acquire);
}

// Release: no word of a record is seen before its odd sequence number.
void store(uint64_t& word, uint64_t value) {
  std::atomic_ref<uint64_t>(word).store(value, std::memory_order_release);
}

// How often a reader looks at a record that is being changed before it passes it over.
constexpr int kReadsMax = 16;

constexpr std::array<bool, kLinkCounters> kOffences = [] {
  std::array<bool, kLinkCounters> table{};
  for (const LinkCounter reason : {
           LinkCounter::kRxDroppedBlacklist,
           LinkCounter::kRxDroppedRateLimit,
           LinkCounter::kRxDroppedHeader,
           LinkCounter::kRxDroppedHeaderChecksum,
           LinkCounter::kRxDroppedOptions,
           LinkCounter::kRxDroppedSource,
           LinkCounter::kRxDroppedLand,
           LinkCounter::kRxDroppedExtension,
           LinkCounter::kRxDroppedSpoofed,
           LinkCounter::kRxDroppedFragmentLength,
           LinkCounter::kRxDroppedFragmentTiny,
           LinkCounter::kRxDroppedFragmentTooLong,
           LinkCounter::kRxDroppedFragmentOverlap,
           LinkCounter::kRxDroppedFragmentMismatch,
           LinkCounter::kRxDroppedFragmentTooMany,
           LinkCounter::kRxDroppedUdpLength,
           LinkCounter::kRxDroppedUdpChecksum,
           LinkCounter::kRxDroppedUdpPort,
           LinkCounter::kRxDroppedTcpLength,
           LinkCounter::kRxDroppedTcpChecksum,
           LinkCounter::kRxDroppedTcpPort,
           LinkCounter::kRxDroppedTcpOptions,
           LinkCounter::kRxDroppedTcpNull,
           LinkCounter::kRxDroppedTcpXmas,
           LinkCounter::kRxDroppedTcpSynFin,
           LinkCounter::kRxDroppedTcpSynRst,
           LinkCounter::kRxDroppedTcpFin,
           LinkCounter::kRxDroppedIcmpLength,
           LinkCounter::kRxDroppedIcmpChecksum,
           LinkCounter::kRxDroppedIcmpQuote,
       }) {
    table[static_cast<size_t>(reason)] = true;
  }
  return table;
}();

}  // namespace

bool is_offence(LinkCounter reason) { return kOffences[static_cast<size_t>(reason)]; }

OffenderTable::OffenderTable(HashKey key)
    : key_(key), sets_(new Set[kSets]()), random_((key.low ^ key.high) | 1) {}

uint64_t OffenderTable::next_random() {
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  return random_;
}

void OffenderTable::sample(LinkCounter reason, std::span<const uint8_t> bytes, uint64_t now_us) {
  const uint64_t weight = skip_drawn_ - skip_left_ + 1;
  pace(weight, now_us);
  skip_drawn_ = stride_ == 1 ? 0 : next_random() % (2 * stride_ - 1);
  skip_left_ = skip_drawn_;
  enter(reason, bytes, weight, now_us);
}

// Sets the share of packets that is sampled: by the last window's drops, and at once when a window
// has more samples than it may.
void OffenderTable::pace(uint64_t weight, uint64_t now_us) {
  window_drops_ += weight;
  if (now_us >= window_end_us_ || now_us < window_start_us_) {
    const uint64_t elapsed_us = std::max(now_us - std::min(window_start_us_, now_us), kWindowUs);
    const uint64_t drops_per_window = window_drops_ * kWindowUs / elapsed_us;
    stride_ = drops_per_window / kSamplesPerWindow + 1;
    window_start_us_ = now_us;
    window_end_us_ = now_us + kWindowUs;
    window_drops_ = 0;
    window_samples_ = 0;
  } else if (++window_samples_ >= kSamplesPerWindow) {
    stride_ *= 2;
    window_samples_ = 0;
  }
}

void OffenderTable::enter(LinkCounter reason, std::span<const uint8_t> bytes, uint64_t weight,
                          uint64_t now_us) {
  const PacketSource source = packet_source(bytes);
  if (source.version == 0) return;  // from nobody that could be named
  uint64_t address[2] = {};
  std::memcpy(address, source.address, source.version == 4 ? 4 : 16);
  const uint64_t hash = source_hash(key_, source.version, address[0], address[1]);
  const uint64_t tag = hash | 1;
  Set& set = sets_[(hash >> 32) % kSets];
  size_t chosen = 0;
  bool found = false;
  for (size_t way = 0; way < kWays && !found; ++way) {
    found = set.tags[way] == tag;
    if (found || set.last_us[way] < set.last_us[chosen]) chosen = way;
  }
  Record& record = set.records[chosen];
  const uint64_t reason_bits = uint64_t{static_cast<uint32_t>(reason)} << 32;
  store(record.sequence, record.sequence + 1);
  if (found) {
    store(record.facts, (record.facts & 0xffffffff) | reason_bits);
    store(record.count, record.count + weight);
  } else {
    set.tags[chosen] = tag;
    const size_t kept = std::min(bytes.size(), Offender::kBytesMax);
    uint64_t words[Offender::kBytesMax / 8] = {};
    std::memcpy(words, bytes.data(), kept);
    for (size_t i = 0; i < std::size(words); ++i) store(record.bytes[i], words[i]);
    store(record.address[0], address[0]);
    store(record.address[1], address[1]);
    store(record.facts, uint64_t{source.version} | uint64_t{hops_from(source.hop_limit)} << 8 |
                            uint64_t{kept} << 16 | reason_bits);
    store(record.count, weight);
    store(record.first_us, now_us);
  }
  store(record.last_us, now_us);
  set.last_us[chosen] = now_us;
  store(record.sequence, record.sequence + 1);
}

void OffenderTable::read(std::vector<Offender>& offenders) const {
  for (size_t i = 0; i < kOffendersMax; ++i) {
    const Record& record = sets_[i / kWays].records[i % kWays];
    for (int reads = 0; reads < kReadsMax; ++reads) {
      const uint64_t sequence = load(record.sequence);
      if (sequence == 0) break;
      if (sequence % 2 != 0) continue;
      const uint64_t facts = load(record.facts);
      const uint64_t address[2] = {load(record.address[0]), load(record.address[1])};
      Offender offender;
      offender.address = IpAddress::from_bytes(static_cast<uint8_t>(facts & 0xff),
                                               reinterpret_cast<const uint8_t*>(address));
      offender.distance = static_cast<uint8_t>(facts >> 8);
      offender.byte_count = static_cast<uint8_t>(facts >> 16);
      offender.last_reason = static_cast<LinkCounter>(facts >> 32);
      offender.count = load(record.count);
      offender.first_us = load(record.first_us);
      offender.last_us = load(record.last_us);
      uint64_t words[Offender::kBytesMax / 8];
      for (size_t word = 0; word < std::size(words); ++word) words[word] = load(record.bytes[word]);
      std::memcpy(offender.bytes.data(), words, sizeof words);
      if (load(record.sequence) != sequence) continue;
      offenders.push_back(offender);
      break;
    }
  }
}

}  // namespace apo
