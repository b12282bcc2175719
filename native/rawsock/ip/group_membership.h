// The multicast groups that a link's runtime has joined, and what the network is told of them: IGMPv3
// (RFC 3376) and MLDv2 (RFC 3810), and their first and second versions when an older querier is on the
// link. Workers join and leave; the native threads ask what to accept, bring the queries and send
// the reports.
//
// One object a link, for all its threads; everything is under one mutex, which is taken for changes,
// queries and reports alone: what is accepted each thread reads in a copy (GroupView). The time is
// handed in. Bounded: groups, and sources of each.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "ip/ip_address.h"

namespace apo {

// What a thread accepts beside its own addresses.
class GroupView {
 public:
  struct Entry {
    IpAddress group;
    bool any = false;  // from every sender
    std::vector<IpAddress> sources;
  };

  [[nodiscard]] bool empty() const { return entries_.empty(); }
  [[nodiscard]] bool contains(uint8_t version, const uint8_t* group, const uint8_t* source) const {
    for (const Entry& entry : entries_) {
      if (entry.group.version != version ||
          !same_address(version, entry.group.bytes.data(), group)) {
        continue;
      }
      if (entry.any) return true;
      for (const IpAddress& one : entry.sources) {
        if (same_address(version, one.bytes.data(), source)) return true;
      }
      return false;
    }
    return false;
  }

 private:
  friend class GroupMembership;
  uint32_t version_ = 0;
  std::vector<Entry> entries_;
};

class GroupMembership {
 public:
  static constexpr size_t kGroupsMax = 64;
  static constexpr size_t kSourcesMax = 32;  // of a group
  static constexpr uint64_t kNever = UINT64_MAX;
  // The longest report: IPv6, with all sources.
  static constexpr size_t kReportBytes = 40 + 8 + 8 + 2 * 20 + kSourcesMax * 16;
  static constexpr unsigned kRobustness = 2;
  // A report of a change is repeated within this time (RFC 3376 8.11, RFC 3810 9.11).
  static constexpr uint64_t kRepeatUs = 1'000'000;
  // How long an older querier is believed to be there (RFC 3376 8.12: 2 x 125 s + 10 s).
  static constexpr uint64_t kOlderQuerierUs = 260'000'000;

  // `reports` false: the kernel tells the network of what is joined (the xdp link).
  explicit GroupMembership(uint32_t seed, bool reports = true)
      : random_(seed | 1), reports_(reports) {}

  // Any thread. No source: every sender. 0, EINVAL (no group), ENOBUFS (too many). Each join is taken
  // back by one leave.
  [[nodiscard]] int join(const IpAddress& group, const IpAddress* source);
  void leave(const IpAddress& group, const IpAddress* source);

  // Copies what is accepted, if it has changed.
  void refresh(GroupView& view) {
    if (version_.load(std::memory_order_acquire) != view.version_) copy(view);
  }

  // A query of a router: the IGMP or MLD message, its checksum verified.
  void query(uint8_t version, std::span<const uint8_t> message, uint64_t now_us);

  // When something is to be sent. Any thread.
  [[nodiscard]] uint64_t deadline_us() const {
    return deadline_us_.load(std::memory_order_acquire);
  }
  // The next report that is due, as a whole packet from one of `own`: its length, or 0 when none is due.
  [[nodiscard]] size_t next_report(uint64_t now_us, const AddressSet& own, std::span<uint8_t> out);

 private:
  struct Source {
    IpAddress address;
    uint32_t users = 0;
  };
  struct Group {
    IpAddress address;
    uint32_t any_users = 0;
    std::vector<Source> sources;
    // What has changed and has still to be told, and how often.
    bool mode_changed = false;
    std::vector<IpAddress> allowed, blocked;
    unsigned changes_left = 0;
    uint64_t change_us = kNever;
    uint64_t answer_us = kNever;  // of a query

    [[nodiscard]] bool joined() const { return any_users > 0 || !sources.empty(); }
  };
  enum Record : uint8_t {
    kIsInclude = 1,
    kIsExclude = 2,
    kToInclude = 3,
    kToExclude = 4,
    kAllow = 5,
    kBlock = 6,
  };

  [[nodiscard]] Group* find(const IpAddress& address);
  void changed(Group& group, bool mode, const IpAddress* allowed, const IpAddress* blocked);
  void copy(GroupView& view);
  void settle();
  void forget_empty();
  [[nodiscard]] unsigned querier(uint8_t version, uint64_t now_us) const;
  [[nodiscard]] uint64_t soon(uint64_t most_us);
  size_t build(const Group& group, bool change, uint64_t now_us, const AddressSet& own,
               std::span<uint8_t> out) const;

  mutable std::mutex mutex_;
  std::vector<Group> groups_;
  uint64_t older_until_us_[2][2] = {};  // by IP version, then querier's: 1, 2
  uint32_t random_;
  const bool reports_;
  std::atomic<uint32_t> version_{1};
  std::atomic<uint64_t> deadline_us_{kNever};
};

}  // namespace apo
