// Puts fragments together again (RFC 791 3.2, RFC 815; RFC 8200 4.5), with the rules that later
// attacks have taught: bounded in every direction, and a datagram whose fragments disagree is given
// up. No clock and no system call: time is handed in, and grows.
//
// What it decides where the standards leave it open:
// - Fragments of a datagram that overlap make it void, in both families, with all fragments of it
//   that come until its time is over (RFC 5722; RFC 8200 4.5 for IPv6). One that is in every byte
//   equal to one that is there is not an overlap but a duplicate, and only that one is dropped.
// - A fragment without data, or one that is not the last and whose data is no multiple of eight
//   bytes, is dropped alone.
// - The first fragment of an IPv6 datagram must hold all headers up to and with the upper layer's
//   (RFC 7112); of TCP over IPv4 at least 16 bytes, and none may begin at byte 8 (RFC 1858, 3128).
// - Two last fragments that end elsewhere, data behind the last one's end, and fragments of which
//   some say "not ECN-capable" and some "congestion experienced" make the datagram void (RFC 3168
//   5.3).
// - Where memory runs out, the oldest datagram goes: first of the sender that has more than its
//   share, else of all. A sender is an IPv4 address or an IPv6 /64.
//
// Every fragment is counted once: it is dropped for a reason, or it is one of a datagram that went
// on (rx.reassembled counts datagrams, rx.merged their fragments but one each), or it waits.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "ip/fragment_facts.h"
#include "ip/icmp_output.h"
#include "ip/steer_hash.h"
#include "thread/link_counters.h"
#include "util/fifo_table.h"

namespace apo {

struct ReassemblyLimits {
  uint32_t datagrams = 256;
  uint32_t bytes = 4 << 20;               // in blocks of 512
  uint32_t fragments_per_datagram = 128;  // 65,535 bytes over a path of 576 need 119
  uint32_t datagrams_per_source = 64;
  uint32_t bytes_per_source = 1 << 20;
  uint64_t ipv4_timeout_us = 30'000'000;
  uint64_t ipv6_timeout_us = 60'000'000;
};

class Reassembler {
 public:
  enum class Outcome : uint8_t {
    kWaiting,      // taken; more are needed
    kComplete,     // `datagram` is a whole packet
    kDropped,      // for `reason`, which is counted already
    kNotFragment,  // a whole packet (an atomic fragment, too: RFC 6946), or none at all
  };
  struct Result {
    Outcome outcome = Outcome::kNotFragment;
    LinkCounter reason = LinkCounter::kRxDroppedFragmentLength;
    // Valid until the next call: the first fragment's headers (IPv6: without the fragment header),
    // lengths and IPv4 checksum made right.
    std::span<const uint8_t> datagram;
    // The ICMP error that the fragment deserves (RFC 8200 4.5), when `has_error`.
    bool has_error = false;
    IcmpError error;
  };

  Reassembler(SteerKey key, LinkCounters counters, const ReassemblyLimits& limits = {});
  Reassembler(const Reassembler&) = delete;
  Reassembler& operator=(const Reassembler&) = delete;

  // Takes one packet, whose headers and addresses the caller has found acceptable (though any bytes
  // are safe). The packet is copied.
  [[nodiscard]] Result add(std::span<const uint8_t> packet, uint64_t now_us);

  // Gives up one datagram whose time is over; false when there is none. `first_fragment` is then
  // its first fragment as it came, to be quoted in "fragment reassembly time exceeded"; empty when
  // it never came, or when no error may be sent. Valid until the next call.
  [[nodiscard]] bool expire(uint64_t now_us, std::span<const uint8_t>& first_fragment);

  // When `expire` has something to do; UINT64_MAX: nothing is waiting.
  [[nodiscard]] uint64_t next_deadline_us() const;

  // Drops everything, as rx.dropped.closing.
  void clear();

  // Of fragments and datagrams that are waiting (void ones have no fragments).
  [[nodiscard]] size_t waiting_fragments() const { return waiting_fragments_; }
  [[nodiscard]] size_t waiting_datagrams() const {
    return family(4).datagrams.size() + family(6).datagrams.size();
  }
  [[nodiscard]] size_t used_bytes() const { return used_blocks_ * kBlockBytes; }

  static constexpr size_t kBlockBytes = 512;

 private:
  static constexpr uint16_t kNone = 0xffff;
  static constexpr size_t kOutBytes = 40 + 65'535;

  struct DatagramKey {
    std::array<uint8_t, 16> source{};
    std::array<uint8_t, 16> destination{};
    uint32_t identification = 0;
    uint8_t protocol = 0;  // IPv4
    bool operator==(const DatagramKey&) const = default;
  };
  struct SourceKey {
    std::array<uint8_t, 8> prefix{};
    uint8_t version = 4;
    bool operator==(const SourceKey&) const = default;
  };
  struct Datagram {
    uint64_t deadline_us = 0;
    uint16_t first = kNone;  // its fragments by offset; a fragment's number is its first block's
    uint16_t last = kNone;
    uint16_t source = kNone;
    uint16_t source_older = kNone;  // the list of its source's datagrams
    uint16_t source_newer = kNone;
    uint16_t fragments = 0;
    uint16_t blocks = 0;
    uint8_t ecn_seen = 0;  // one bit for each of the four values
    bool is_void = false;
    bool has_total = false;
    LinkCounter void_reason = LinkCounter::kRxDroppedFragmentOverlap;
    uint32_t received = 0;  // bytes of data, all different
    uint32_t total = 0;     // bytes of data, known from the last fragment
    // Of the first fragment: see FragmentFacts.
    uint16_t split_bytes = 0;
    uint16_t next_header_field = 0;
    uint8_t next_header = 0;
  };
  struct Source {
    uint16_t oldest = kNone;
    uint16_t newest = kNone;
    uint16_t datagrams = 0;
    uint32_t blocks = 0;
  };
  // A block of memory; what is said of fragments holds for the first block of each.
  struct Block {
    uint16_t next = kNone;           // of this fragment, or of the free list
    uint16_t next_fragment = kNone;  // of the datagram
    uint16_t skip = 0;               // bytes of headers before the data (first fragment)
    uint16_t length = 0;             // of the data
    uint32_t offset = 0;             // of the data in the datagram
  };
  using Datagrams = FifoTable<DatagramKey, Datagram>;
  struct Family {
    explicit Family(size_t capacity) : datagrams(capacity) {}
    Datagrams datagrams;
    uint64_t timeout_us = 0;
  };

  // Where a fragment belongs among those that are there.
  struct Place {
    uint16_t before = kNone;
    uint16_t after = kNone;
    bool overlaps = false;
    bool duplicate = false;
  };

  [[nodiscard]] Family& family(uint8_t version) { return version == 4 ? four_ : six_; }
  [[nodiscard]] const Family& family(uint8_t version) const { return version == 4 ? four_ : six_; }
  static size_t skip_of(const FragmentFacts& facts);
  uint16_t find_or_make(const FragmentFacts& facts, uint64_t now_us);
  Place place_of(const Datagram& datagram, const FragmentFacts& facts) const;
  bool contradicts(const Datagram& datagram, const FragmentFacts& facts) const;
  bool make_room(uint8_t version, uint16_t at, size_t blocks);
  void insert(Datagram& datagram, const FragmentFacts& facts, const Place& place);
  uint16_t store(std::span<const uint8_t> bytes);
  bool equals(uint16_t fragment, std::span<const uint8_t> bytes) const;
  // Appends a fragment's bytes from `skip` on to `out`.
  size_t copy_out(uint16_t fragment, size_t skip, uint8_t* out) const;
  Result complete(uint8_t version, uint16_t at);
  Result refuse(LinkCounter reason);
  Result make_void(uint8_t version, uint16_t at, LinkCounter reason);
  void release_fragments(Datagram& datagram);
  void forget(uint8_t version, uint16_t at);
  void evict(uint8_t version, uint16_t at, LinkCounter reason);
  // The datagram that came first, of those that hold memory or of all; its version and index.
  [[nodiscard]] std::pair<uint8_t, uint16_t> oldest(bool with_fragments) const;
  uint32_t hash_of(const DatagramKey& key, size_t address_bytes) const;
  uint32_t hash_of(const SourceKey& key) const;

  SteerKey key_;
  LinkCounters counters_;
  ReassemblyLimits limits_;
  Family four_;
  Family six_;
  FifoTable<SourceKey, Source> sources_;
  std::unique_ptr<uint8_t[]> memory_;
  std::unique_ptr<Block[]> blocks_;
  size_t block_count_ = 0;
  uint16_t free_block_ = kNone;
  size_t used_blocks_ = 0;
  size_t waiting_fragments_ = 0;
  std::unique_ptr<uint8_t[]> out_;
};

}  // namespace apo
