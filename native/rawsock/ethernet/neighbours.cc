#include "ethernet/neighbours.h"

#include <algorithm>
#include <bit>

namespace apo {
namespace {

// A parked packet's memory is kept for the next one unless it was a super-packet's.
constexpr size_t kKeptBytes = 2048;

}  // namespace

Neighbours::Neighbours(SteerKey key, size_t capacity)
    : key_(key),
      capacity_(std::clamp<size_t>(capacity, 1, 1u << 20)),
      entries_(capacity_),
      buckets_(std::bit_ceil(capacity_ * 2), kNone),
      packets_(kWaitingMax) {
  free_.reserve(capacity_);
  for (size_t i = capacity_; i > 0; --i) free_.push_back(static_cast<uint32_t>(i - 1));
  for (size_t i = kWaitingMax; i > 0; --i) free_packets_.push_back(static_cast<uint16_t>(i - 1));
}

uint32_t Neighbours::bucket(const IpAddress& address) const {
  HalfSipHash hash(key_);
  for (size_t i = 0; i < address.size(); i += 4) hash.add(wire::load32(address.bytes.data() + i));
  return hash.finish() & static_cast<uint32_t>(buckets_.size() - 1);
}

uint32_t Neighbours::find(const IpAddress& address) const {
  uint32_t index = buckets_[bucket(address)];
  while (index != kNone && entries_[index].address != address) index = entries_[index].hash_next;
  return index;
}

Neighbours::Answer Neighbours::resolve(const IpAddress& address, std::span<const uint8_t> packet,
                                       const Offload& offload, uint64_t now_us,
                                       NeighbourSink& sink) {
  const uint32_t known = find(address);
  if (known == kNone) {
    if (!take_ask(now_us)) {
      sink.count(LinkCounter::kNeighbourLimited);
      return {.result = LinkCounter::kTxDroppedUnresolved};
    }
    const uint32_t made = make_entry(address, sink);
    ask(made, now_us, sink);
    return {.result = park(made, packet, offload, sink)};
  }
  Entry& entry = entries_[known];
  if (used_.last != known) {
    unlink(used_, &Entry::used, known);
    append(used_, &Entry::used, known);
  }
  if (entry.state == NeighbourState::kIncomplete) {
    return {.result = park(known, packet, offload, sink)};
  }
  const bool expired = entry.state == NeighbourState::kReachable && entry.at_us <= now_us;
  if (expired || entry.state == NeighbourState::kStale) {
    set_state(known, NeighbourState::kDelay, now_us + kDelayUs);
  }
  return {.mac = &entry.mac};
}

bool Neighbours::learn(const IpAddress& address, const NeighbourClaim& claim, uint64_t now_us,
                       NeighbourSink& sink) {
  const uint32_t index = find(address);
  if (index == kNone) return false;
  Entry& entry = entries_[index];
  const bool incomplete = entry.state == NeighbourState::kIncomplete;
  // "Solicited" is the speaker's own word: it counts only while a question of ours is open.
  const bool asked = incomplete || entry.state == NeighbourState::kProbe;
  const bool confirmed = claim.solicited && asked;
  if (!claim.mac) {
    if (confirmed && !incomplete)
      set_state(index, NeighbourState::kReachable, now_us + kReachableUs);
    return true;
  }
  if (!incomplete && entry.mac != *claim.mac && !claim.override) {
    // Not meant to replace: ask the one that we know when it is next used (RFC 4861 7.2.5).
    if (entry.state == NeighbourState::kReachable) set_state(index, NeighbourState::kStale, 0);
    return true;
  }
  const bool changed = entry.mac != *claim.mac;
  entry.mac = *claim.mac;
  if (confirmed) {
    set_state(index, NeighbourState::kReachable, now_us + kReachableUs);
  } else if (changed || incomplete) {
    set_state(index, NeighbourState::kStale, 0);
  }
  if (incomplete) {
    sink.count(LinkCounter::kNeighbourResolved);
    flush(entry, sink);
  } else if (changed) {
    sink.count(LinkCounter::kNeighbourChanged);
  }
  return true;
}

uint64_t Neighbours::deadline_us() const {
  uint64_t soonest = kNever;
  for (const List* list : {&incomplete_, &delays_, &probes_}) {
    if (list->first != kNone) soonest = std::min(soonest, entries_[list->first].at_us);
  }
  return soonest;
}

void Neighbours::tick(uint64_t now_us, NeighbourSink& sink) {
  for (List* list : {&incomplete_, &delays_, &probes_}) {
    // An entry that is asked again goes to a list's end with a time beyond now, so this ends.
    while (list->first != kNone && entries_[list->first].at_us <= now_us) {
      expire(list->first, now_us, sink);
    }
  }
}

void Neighbours::expire(uint32_t index, uint64_t now_us, NeighbourSink& sink) {
  Entry& entry = entries_[index];
  if (entry.state == NeighbourState::kDelay) {
    set_state(index, NeighbourState::kProbe, now_us + kRetryUs);
    entry.attempts = 0;
  }
  if (entry.attempts < kAttempts) {
    ask(index, now_us, sink);
    return;
  }
  sink.count(LinkCounter::kNeighbourFailed);
  const IpAddress address = entry.address;
  remove(index, LinkCounter::kNeighbourDroppedUnreachable, sink);
  sink.failed(address);
}

void Neighbours::clear(NeighbourSink& sink) {
  while (used_.first != kNone) remove(used_.first, LinkCounter::kNeighbourDroppedUnreachable, sink);
}

bool Neighbours::state_of(const IpAddress& address, uint64_t now_us, NeighbourState* state) const {
  const uint32_t index = find(address);
  if (index == kNone) return false;
  const Entry& entry = entries_[index];
  *state = entry.state;
  if (entry.state == NeighbourState::kReachable && entry.at_us <= now_us) {
    *state = NeighbourState::kStale;
  }
  return true;
}

uint32_t Neighbours::make_entry(const IpAddress& address, NeighbourSink& sink) {
  if (waiting_ == kWaitingMax) {
    // Churn rather than refusal: whoever floods us with strangers cannot keep neighbours out.
    remove(incomplete_.first, LinkCounter::kNeighbourDroppedDisplaced, sink);
  }
  if (free_.empty()) {
    // The longest unused one that nothing waits for; a tiny cache may have none.
    uint32_t victim = used_.first;
    while (victim != kNone && entries_[victim].waiting > 0) victim = entries_[victim].used.behind;
    if (victim == kNone) victim = used_.first;
    sink.count(LinkCounter::kNeighbourEvicted);
    remove(victim, LinkCounter::kNeighbourDroppedDisplaced, sink);
  }
  const uint32_t index = free_.back();
  free_.pop_back();
  ++size_;
  Entry& entry = entries_[index];
  entry = Entry{};
  entry.address = address;
  uint32_t& head = buckets_[bucket(address)];
  entry.hash_next = head;
  head = index;
  append(used_, &Entry::used, index);
  append(incomplete_, &Entry::timed, index);
  return index;
}

void Neighbours::remove(uint32_t index, LinkCounter reason, NeighbourSink& sink) {
  Entry& entry = entries_[index];
  while (entry.waiting > 0) drop_oldest(entry, reason, sink);
  if (List* timers = timers_of(entry.state)) unlink(*timers, &Entry::timed, index);
  unlink(used_, &Entry::used, index);
  uint32_t* link = &buckets_[bucket(entry.address)];
  while (*link != index) link = &entries_[*link].hash_next;
  *link = entry.hash_next;
  free_.push_back(index);
  --size_;
}

LinkCounter Neighbours::park(uint32_t index, std::span<const uint8_t> packet,
                             const Offload& offload, NeighbourSink& sink) {
  Entry& entry = entries_[index];
  if (entry.waiting == kWaitingPerNeighbourMax) {
    drop_oldest(entry, LinkCounter::kNeighbourDroppedDisplaced, sink);
  } else if (waiting_ == kWaitingMax) {
    return LinkCounter::kTxDroppedUnresolved;
  }
  const uint16_t slot = free_packets_.back();
  free_packets_.pop_back();
  ++waiting_;
  Waiting& waiting = packets_[slot];
  if (waiting.capacity < packet.size()) {
    waiting.capacity = std::max(kKeptBytes, packet.size());
    waiting.bytes = std::make_unique_for_overwrite<uint8_t[]>(waiting.capacity);
  }
  std::copy(packet.begin(), packet.end(), waiting.bytes.get());
  waiting.length = packet.size();
  waiting.offload = offload;
  entry.packets[entry.waiting++] = slot;
  return LinkCounter::kTxParked;
}

void Neighbours::drop_oldest(Entry& entry, LinkCounter reason, NeighbourSink& sink) {
  sink.count(reason);
  free_packet(entry.packets[0]);
  --entry.waiting;
  for (size_t i = 0; i < entry.waiting; ++i) entry.packets[i] = entry.packets[i + 1];
}

void Neighbours::flush(Entry& entry, NeighbourSink& sink) {
  for (size_t i = 0; i < entry.waiting; ++i) {
    const Waiting& waiting = packets_[entry.packets[i]];
    sink.send(entry.mac, {waiting.bytes.get(), waiting.length}, waiting.offload);
    free_packet(entry.packets[i]);
  }
  entry.waiting = 0;
}

void Neighbours::free_packet(uint16_t packet) {
  Waiting& waiting = packets_[packet];
  if (waiting.capacity > kKeptBytes) {
    waiting.bytes.reset();
    waiting.capacity = 0;
  }
  free_packets_.push_back(packet);
  --waiting_;
}

bool Neighbours::take_ask(uint64_t now_us) {
  constexpr uint64_t kOne = 1'000'000;
  const uint64_t elapsed_us = std::min<uint64_t>(now_us - std::min(now_us, asked_us_), kOne);
  asks_ = std::min(asks_ + elapsed_us * kAsksPerSecond, kAskBurst * kOne);
  asked_us_ = std::max(asked_us_, now_us);
  if (asks_ < kOne) return false;
  asks_ -= kOne;
  return true;
}

void Neighbours::ask(uint32_t index, uint64_t now_us, NeighbourSink& sink) {
  Entry& entry = entries_[index];
  ++entry.attempts;
  set_state(index, entry.state, now_us + kRetryUs);
  sink.count(LinkCounter::kNeighbourAsks);
  sink.ask(entry.address, entry.state == NeighbourState::kProbe ? &entry.mac : nullptr);
}

Neighbours::List* Neighbours::timers_of(NeighbourState state) {
  switch (state) {
    case NeighbourState::kIncomplete:
      return &incomplete_;
    case NeighbourState::kDelay:
      return &delays_;
    case NeighbourState::kProbe:
      return &probes_;
    default:
      return nullptr;
  }
}

void Neighbours::set_state(uint32_t index, NeighbourState state, uint64_t at_us) {
  Entry& entry = entries_[index];
  if (List* timers = timers_of(entry.state)) unlink(*timers, &Entry::timed, index);
  entry.state = state;
  entry.at_us = at_us;
  if (List* timers = timers_of(state)) append(*timers, &Entry::timed, index);
}

void Neighbours::append(List& list, Node Entry::*node, uint32_t index) {
  entries_[index].*node = {list.last, kNone};
  if (list.last == kNone) {
    list.first = index;
  } else {
    (entries_[list.last].*node).behind = index;
  }
  list.last = index;
}

void Neighbours::unlink(List& list, Node Entry::*node, uint32_t index) {
  const Node at = entries_[index].*node;
  (at.before == kNone ? list.first : (entries_[at.before].*node).behind) = at.behind;
  (at.behind == kNone ? list.last : (entries_[at.behind].*node).before) = at.before;
}

}  // namespace apo
