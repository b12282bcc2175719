// The guard of a runtime: what is dropped before anything else looks at a packet. By the packet's
// source address: the longest prefix of the two lists decides (allowed: passes the list and the
// rate limit; blocked: dropped), else the rate limit of its source prefix. And a record of who sent
// what was dropped.
//
// `Guard` is shared: any thread changes it, one at a time. `GuardView` belongs to one native
// thread. Lists and buckets are shared by all views: the lists because readers need no lock, see
// changes at once and a million entries are kept once; the buckets because a source with many flows
// is spread over all queues, and its rate is one. So a change of any size costs the packets' threads
// nothing. Only the record of offenders is each view's own.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "guard/offenders.h"
#include "guard/prefix_table.h"
#include "guard/rate_limit.h"
#include "thread/link_counters.h"

namespace apo {

class Guard {
 public:
  enum class Change : uint8_t { kAdd, kRemove };
  struct Outcome {
    PrefixTable::Result result = PrefixTable::Result::kDone;  // else of the prefix that ended it
    size_t taken = 0;                                         // prefixes gone through, in order
    size_t changed = 0;  // of these, those that were not as asked already
  };

  // The key is drawn once, from the system's random numbers; equal keys make equal tables in tests.
  explicit Guard(HashKey key) : key_(key) {}
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

  // Goes on until all are done, or one is invalid or finds no room.
  Outcome change(Change change, uint8_t list, std::span<const IpPrefix> prefixes);
  // False: not a valid limit; nothing changed. Views take it up with their next batch.
  bool set_limit(const RateLimit& limit);
  [[nodiscard]] RateLimit limit() const;

  [[nodiscard]] const PrefixTable& lists() const { return lists_; }
  // Of all views together, those silent longest last; an address that several views have seen is
  // one. Any thread.
  [[nodiscard]] std::vector<Offender> offenders() const;

 private:
  friend class GuardView;

  [[nodiscard]] std::shared_ptr<OffenderTable> enter_view();
  void leave_view(const std::shared_ptr<OffenderTable>& table);

  const HashKey key_;
  mutable std::mutex lists_mutex_;  // held by writers only
  PrefixTable lists_;

  mutable std::mutex settings_mutex_;  // held for a moment only: views take it too
  RateLimit limit_;
  std::unique_ptr<RateTable> buckets_;  // made with the first limit
  uint32_t views_ = 0;
  std::vector<std::shared_ptr<OffenderTable>> offenders_;         // all
  std::vector<std::shared_ptr<OffenderTable>> unused_offenders_;  // those of views that have gone
  std::atomic<uint32_t> settings_version_{1};
};

class GuardView {
 public:
  explicit GuardView(std::shared_ptr<Guard> guard);
  ~GuardView();
  GuardView(const GuardView&) = delete;
  GuardView& operator=(const GuardView&) = delete;

  // Before each batch of packets: takes up a changed limit. One relaxed load when there is none.
  void begin_batch() {
    if (guard_->settings_version_.load(std::memory_order_relaxed) != settings_seen_) refresh();
  }

  // Before any other check. kRxPackets: go on; else the reason to drop the packet, which the caller
  // tells `dropped` like any other. `bytes` may be anything from the network.
  [[nodiscard]] LinkCounter admit(std::span<const uint8_t> bytes, uint64_t now_us) {
    const PacketSource source = packet_source(bytes);
    if (source.version == 0) return LinkCounter::kRxPackets;  // the input check's matter
    const uint8_t listing = guard_->lists_.find(source.version, source.address);
    if ((listing & kListedAllowed) != 0) return LinkCounter::kRxPackets;
    if ((listing & kListedBlocked) != 0) return LinkCounter::kRxDroppedBlacklist;
    if (!pace_.is_limited() || buckets_->take(pace_, source, now_us, shared_)) {
      return LinkCounter::kRxPackets;
    }
    return LinkCounter::kRxDroppedRateLimit;
  }

  // Every received packet that was dropped, whatever the reason: those that are offences are
  // recorded, sampled under a flood.
  void dropped(LinkCounter reason, std::span<const uint8_t> bytes, uint64_t now_us) {
    if (is_offence(reason)) offenders_->dropped(reason, bytes, now_us);
  }

 private:
  void refresh();

  const std::shared_ptr<Guard> guard_;
  const std::shared_ptr<OffenderTable> offenders_;
  uint32_t settings_seen_ = 0;
  RatePace pace_;
  RateTable* buckets_ = nullptr;  // the guard's; there when the pace is limited
  bool shared_ = true;
};

}  // namespace apo
