// The neighbour cache: which hardware address an IP address on the link has, in the spirit of RFC
// 4861 7.3 for both IP versions, and the packets that wait until it is known.
//
// Everything is bounded, and nothing outside can fill it: an entry is made only by a packet of ours
// that wants to go out, never by what somebody says unasked; at most `kWaitingMax` packets wait, so
// at most as many entries are unresolved; questions have a budget; entries are found by a keyed
// hash. When the cache is full the entry that was used longest ago makes room.
//
// Pure: no system calls, the time is handed in, what is to be sent goes to a NeighbourSink.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "ethernet/ethernet.h"
#include "ip/ip_address.h"
#include "ip/steer_hash.h"
#include "thread/link_counters.h"
#include "wire/packet_descriptor.h"

namespace apo {

enum class NeighbourState : uint8_t {
  kIncomplete,  // asked for, no answer yet
  kReachable,   // confirmed less than 30 s ago
  kStale,       // believed until used
  kDelay,       // used while stale: asked again in 5 s
  kProbe,       // being asked by unicast
};

// What the cache asks of its link. No call may come back into the cache.
class NeighbourSink {
 public:
  virtual ~NeighbourSink() = default;
  // To ask for `address`: everybody, or the one who had it last.
  virtual void ask(const IpAddress& address, const MacAddress* last) = 0;
  // A packet that has waited goes out.
  virtual void send(const MacAddress& to, std::span<const uint8_t> packet,
                    const Offload& offload) = 0;
  // A neighbour that did not answer is forgotten.
  virtual void failed(const IpAddress& address) = 0;
  virtual void count(LinkCounter counter, uint64_t amount = 1) = 0;
};

// What somebody on the link says of an address.
struct NeighbourClaim {
  std::optional<MacAddress> mac;  // none: whatever was known is confirmed (RFC 4861 4.4)
  bool solicited = false;         // an answer to a question, by its own word
  bool override = true;           // meant to replace what was known (ARP: always)
};

class Neighbours {
 public:
  static constexpr size_t kDefaultCapacity = 4096;
  static constexpr size_t kWaitingMax = 256;
  // The fragments of a datagram of 64 KB, each of 1,500 bytes, and a few more.
  static constexpr size_t kWaitingPerNeighbourMax = 48;
  static constexpr uint32_t kAttempts = 3;
  static constexpr uint64_t kRetryUs = 1'000'000;
  static constexpr uint64_t kDelayUs = 5'000'000;
  static constexpr uint64_t kReachableUs = 30'000'000;
  // Questions, so that nobody who makes us answer strangers makes us flood the link.
  static constexpr uint64_t kAsksPerSecond = 1000;
  static constexpr uint64_t kAskBurst = 256;
  static constexpr uint64_t kNever = UINT64_MAX;

  Neighbours(SteerKey key, size_t capacity = kDefaultCapacity);

  struct Answer {
    const MacAddress* mac = nullptr;               // known: valid until the next call
    LinkCounter result = LinkCounter::kTxPackets;  // else kTxParked, or why it was dropped
  };
  // Where a packet to the neighbour `address` goes. When that is not known yet, the packet is
  // copied and waits.
  [[nodiscard]] Answer resolve(const IpAddress& address, std::span<const uint8_t> packet,
                               const Offload& offload, uint64_t now_us, NeighbourSink& sink);

  // Only entries that exist learn from it. False: nobody here had asked for it.
  bool learn(const IpAddress& address, const NeighbourClaim& claim, uint64_t now_us,
             NeighbourSink& sink);

  [[nodiscard]] uint64_t deadline_us() const;
  void tick(uint64_t now_us, NeighbourSink& sink);
  // Forgets everybody (another network may be there); what waits is dropped.
  void clear(NeighbourSink& sink);

  [[nodiscard]] size_t size() const { return size_; }
  [[nodiscard]] size_t waiting() const { return waiting_; }
  // For tests. False: there is none.
  [[nodiscard]] bool state_of(const IpAddress& address, uint64_t now_us,
                              NeighbourState* state) const;

 private:
  static constexpr uint32_t kNone = UINT32_MAX;

  // A double list of entries by index.
  struct List {
    uint32_t first = kNone;
    uint32_t last = kNone;
  };
  struct Node {
    uint32_t before = kNone;
    uint32_t behind = kNone;
  };
  struct Entry {
    IpAddress address;
    MacAddress mac;
    NeighbourState state = NeighbourState::kIncomplete;
    uint8_t attempts = 0;
    uint8_t waiting = 0;
    std::array<uint16_t, kWaitingPerNeighbourMax> packets{};  // the oldest first
    uint32_t hash_next = kNone;
    Node used;           // all entries, the longest unused first
    Node timed;          // those of one state that has a timer
    uint64_t at_us = 0;  // the timer's end; kReachable: until when
  };
  struct Waiting {
    std::unique_ptr<uint8_t[]> bytes;
    size_t capacity = 0;
    size_t length = 0;
    Offload offload;
  };

  [[nodiscard]] uint32_t bucket(const IpAddress& address) const;
  [[nodiscard]] uint32_t find(const IpAddress& address) const;
  [[nodiscard]] uint32_t make_entry(const IpAddress& address, NeighbourSink& sink);
  void remove(uint32_t index, LinkCounter reason, NeighbourSink& sink);
  [[nodiscard]] LinkCounter park(uint32_t index, std::span<const uint8_t> packet,
                                 const Offload& offload, NeighbourSink& sink);
  void drop_oldest(Entry& entry, LinkCounter reason, NeighbourSink& sink);
  void flush(Entry& entry, NeighbourSink& sink);
  void free_packet(uint16_t packet);
  [[nodiscard]] bool take_ask(uint64_t now_us);
  void ask(uint32_t index, uint64_t now_us, NeighbourSink& sink);
  void set_state(uint32_t index, NeighbourState state, uint64_t at_us);
  [[nodiscard]] List* timers_of(NeighbourState state);
  void append(List& list, Node Entry::*node, uint32_t index);
  void unlink(List& list, Node Entry::*node, uint32_t index);
  void expire(uint32_t index, uint64_t now_us, NeighbourSink& sink);

  const SteerKey key_;
  const size_t capacity_;
  std::vector<Entry> entries_;
  std::vector<uint32_t> buckets_;
  std::vector<uint32_t> free_;
  size_t size_ = 0;
  List used_;
  // Those with a timer; each list's entries have the same duration, so the first ends first.
  List incomplete_;
  List delays_;
  List probes_;
  std::vector<Waiting> packets_;
  std::vector<uint16_t> free_packets_;
  size_t waiting_ = 0;
  uint64_t asks_ = kAskBurst * 1'000'000;  // millionths of a question
  uint64_t asked_us_ = 0;
};

}  // namespace apo
