#include "ip/group_membership.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "wire/checksum.h"
#include "wire/igmp.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace apo {
namespace {

bool is_group(const IpAddress& address) {
  return address.version == 4 ? address.bytes[0] >> 4 == 14 : address.bytes[0] == 0xff;
}

// Of which nobody is told: all hosts; IPv6 groups of one machine or of no scope (RFC 3810 6).
bool is_silent(const IpAddress& group) {
  constexpr uint8_t kAllHosts[4] = {224, 0, 0, 1};
  constexpr uint8_t kAllNodes[16] = {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  if (group.version == 4) return std::memcmp(group.bytes.data(), kAllHosts, 4) == 0;
  return (group.bytes[1] & 15) < 2 || std::memcmp(group.bytes.data(), kAllNodes, 16) == 0;
}

IpAddress four(uint8_t a, uint8_t b, uint8_t c, uint8_t d) {
  const uint8_t bytes[4] = {a, b, c, d};
  return IpAddress::from_bytes(4, bytes);
}

IpAddress all_six(uint8_t last) {
  uint8_t bytes[16] = {0xff, 0x02};
  bytes[15] = last;
  return IpAddress::from_bytes(6, bytes);
}

// Our address to report from. IPv6: a link-local one, or none at all (RFC 3810 5.2.13).
bool source_of(uint8_t version, const AddressSet& own, IpAddress& source) {
  source.version = version;
  source.bytes = {};
  for (size_t i = 0; i < own.size(); ++i) {
    const IpAddress& address = own.at(i).prefix.address;
    if (address.version != version || own.at(i).whole) continue;
    const bool link_local = address.bytes[0] == 0xfe && (address.bytes[1] & 0xc0) == 0x80;
    if (version == 6 && !link_local) continue;
    source = address;
    return true;
  }
  return version == 6;
}

// An exponential code of the times in queries (RFC 3376 4.1.1, RFC 3810 5.1.3).
uint32_t decode_time(uint32_t code, unsigned mantissa_bits) {
  const uint32_t linear = 1u << (mantissa_bits + 3);
  if (code < linear) return code;
  const uint32_t mantissa = (code & ((1u << mantissa_bits) - 1)) | 1u << mantissa_bits;
  return mantissa << ((code >> mantissa_bits & 7) + 3);
}

// An IP header with the router alert option; returns where the upper layer begins.
size_t write_headers(std::span<uint8_t> out, const IpAddress& from, const IpAddress& to,
                     size_t upper_bytes) {
  using namespace wire;
  uint8_t* at = out.data();
  if (from.version == 4) {
    constexpr size_t kBytes = 24;
    std::memset(at, 0, kBytes);
    at[0] = 0x46;
    at[ipv4_field::kTrafficClass] = 0xc0;
    store16(at + ipv4_field::kTotalLength, static_cast<uint32_t>(kBytes + upper_bytes));
    store16(at + ipv4_field::kFragment, Ipv4View::kDontFragment);
    at[ipv4_field::kTtl] = 1;
    at[ipv4_field::kProtocol] = ip_protocol::kIgmp;
    std::memcpy(at + ipv4_field::kSource, from.bytes.data(), 4);
    std::memcpy(at + ipv4_field::kDestination, to.bytes.data(), 4);
    store32(at + ipv4_field::kOptions, 0x94040000);
    store16(at + ipv4_field::kChecksum, checksum_finish(checksum_add(0, at, kBytes)));
    return kBytes;
  }
  constexpr size_t kBytes = Ipv6View::kHeaderBytes + 8;
  std::memset(at, 0, kBytes);
  at[0] = 0x60;
  store16(at + ipv6_field::kPayloadLength, static_cast<uint32_t>(8 + upper_bytes));
  at[ipv6_field::kNextHeader] = ip_protocol::kHopByHop;
  at[ipv6_field::kHopLimit] = 1;
  std::memcpy(at + ipv6_field::kSource, from.bytes.data(), 16);
  std::memcpy(at + ipv6_field::kDestination, to.bytes.data(), 16);
  at[Ipv6View::kHeaderBytes] = ip_protocol::kIcmpv6;
  store32(at + Ipv6View::kHeaderBytes + 2, 0x05020000);
  store16(at + Ipv6View::kHeaderBytes + 6, 0x0100);
  return kBytes;
}

void write_checksum(std::span<uint8_t> packet, size_t upper, uint8_t version) {
  using namespace wire;
  const size_t length = packet.size() - upper;
  Sum sum = 0;
  if (version == 6) {
    sum = checksum_pseudo_header(packet.data() + ipv6_field::kSource, 16,
                                 static_cast<uint32_t>(length), ip_protocol::kIcmpv6);
  }
  uint8_t* field = packet.data() + upper + igmp_field::kChecksum;
  store16(field, checksum_finish(checksum_add(sum, packet.data() + upper, length)));
}

}  // namespace

int GroupMembership::join(const IpAddress& group, const IpAddress* source) {
  if (!is_group(group) || (source != nullptr && source->version != group.version)) return EINVAL;
  const std::lock_guard lock(mutex_);
  Group* found = find(group);
  if (found == nullptr) {
    // Room is worth more than that the leaving of another is told a second time.
    if (groups_.size() == kGroupsMax) {
      std::erase_if(groups_, [](const Group& one) { return !one.joined(); });
    }
    if (groups_.size() == kGroupsMax) return ENOBUFS;
    found = &groups_.emplace_back();
    found->address = group;
  }
  if (source == nullptr) {
    if (++found->any_users == 1) changed(*found, true, nullptr, nullptr);
    return 0;
  }
  for (Source& one : found->sources) {
    if (one.address == *source) {
      ++one.users;
      return 0;
    }
  }
  if (found->sources.size() == kSourcesMax) return ENOBUFS;
  found->sources.push_back({*source, 1});
  changed(*found, false, source, nullptr);
  return 0;
}

void GroupMembership::leave(const IpAddress& group, const IpAddress* source) {
  const std::lock_guard lock(mutex_);
  Group* found = find(group);
  if (found == nullptr) return;
  if (source == nullptr) {
    if (found->any_users > 0 && --found->any_users == 0) changed(*found, true, nullptr, nullptr);
    return;
  }
  const auto one = std::ranges::find(found->sources, *source, &Source::address);
  if (one == found->sources.end() || --one->users > 0) return;
  found->sources.erase(one);
  changed(*found, false, nullptr, source);
}

GroupMembership::Group* GroupMembership::find(const IpAddress& address) {
  const auto found = std::ranges::find(groups_, address, &Group::address);
  return found == groups_.end() ? nullptr : &*found;
}

// Under the mutex: what is to be told, beginning at once.
void GroupMembership::changed(Group& group, bool mode, const IpAddress* allowed,
                              const IpAddress* blocked) {
  version_.fetch_add(1, std::memory_order_release);
  if (reports_ && !is_silent(group.address)) {
    if (mode) {
      group.mode_changed = true;
      group.allowed.clear();
      group.blocked.clear();
    } else if (group.any_users > 0) {
      return;  // every sender is wanted, this one or not
    }
    if (allowed != nullptr) {
      std::erase(group.blocked, *allowed);
      group.allowed.push_back(*allowed);
    }
    if (blocked != nullptr) {
      std::erase(group.allowed, *blocked);
      if (group.blocked.size() < kSourcesMax) group.blocked.push_back(*blocked);
    }
    group.changes_left = kRobustness;
    group.change_us = 0;
  }
  forget_empty();
  settle();
}

void GroupMembership::forget_empty() {
  std::erase_if(groups_,
                [](const Group& group) { return !group.joined() && group.changes_left == 0; });
}

void GroupMembership::settle() {
  uint64_t deadline = kNever;
  for (const Group& group : groups_) {
    deadline = std::min({deadline, group.change_us, group.answer_us});
  }
  deadline_us_.store(deadline, std::memory_order_release);
}

void GroupMembership::copy(GroupView& view) {
  const std::lock_guard lock(mutex_);
  view.version_ = version_.load(std::memory_order_acquire);
  view.entries_.clear();
  for (const Group& group : groups_) {
    if (!group.joined()) continue;
    GroupView::Entry& entry = view.entries_.emplace_back();
    entry.group = group.address;
    entry.any = group.any_users > 0;
    for (const Source& source : group.sources) entry.sources.push_back(source.address);
  }
}

uint64_t GroupMembership::soon(uint64_t most_us) {
  random_ ^= random_ << 13;
  random_ ^= random_ >> 17;
  random_ ^= random_ << 5;
  return most_us == 0 ? 0 : random_ % most_us;
}

// The version that the querier on the link speaks: IGMP 1 to 3; MLD 1 and 2.
unsigned GroupMembership::querier(uint8_t version, uint64_t now_us) const {
  const auto& until = older_until_us_[version == 6];
  if (now_us < until[0]) return 1;
  return version == 6 || now_us < until[1] ? 2 : 3;
}

void GroupMembership::query(uint8_t version, std::span<const uint8_t> message, uint64_t now_us) {
  using namespace wire;
  if (!reports_) return;
  const size_t address_bytes = version == 4 ? 4 : 16;
  const size_t group_at = version == 4 ? igmp_field::kGroup : mld_field::kGroup;
  const size_t oldest_bytes = group_at + address_bytes;
  if (message.size() < oldest_bytes) return;
  const std::lock_guard lock(mutex_);
  uint64_t most_us;
  const bool newest = message.size() >= oldest_bytes + 4;
  if (version == 4) {
    const uint8_t code = message[igmp_field::kCode];
    if (!newest) older_until_us_[0][code == 0 ? 0 : 1] = now_us + kOlderQuerierUs;
    // Tenths of a second; the first version has none, and means ten seconds.
    most_us = 100'000ULL * (newest ? decode_time(code, 4) : code == 0 ? 100 : code);
  } else {
    const uint32_t code = load16(message.data() + mld_field::kDelay);
    if (!newest) older_until_us_[1][0] = now_us + kOlderQuerierUs;
    most_us = 1000ULL * (newest ? decode_time(code, 12) : code);
  }
  const IpAddress asked = IpAddress::from_bytes(version, message.data() + group_at);
  const bool general = std::ranges::all_of(asked.bytes, [](uint8_t byte) { return byte == 0; });
  for (Group& group : groups_) {
    if (group.address.version != version || !group.joined() || is_silent(group.address)) continue;
    if (!general && group.address != asked) continue;
    // A question about some sources is answered with all: more than was asked for does no harm.
    group.answer_us = std::min(group.answer_us, now_us + soon(most_us));
  }
  settle();
}

size_t GroupMembership::next_report(uint64_t now_us, const AddressSet& own,
                                    std::span<uint8_t> out) {
  if (now_us < deadline_us()) return 0;
  const std::lock_guard lock(mutex_);
  size_t length = 0;
  for (Group& group : groups_) {
    if (group.change_us <= now_us) {
      length = build(group, true, now_us, own, out);
      if (--group.changes_left > 0) {
        group.change_us = now_us + soon(kRepeatUs);
      } else {
        group.change_us = kNever;
        group.mode_changed = false;
        group.allowed.clear();
        group.blocked.clear();
      }
    } else if (group.answer_us <= now_us) {
      group.answer_us = kNever;
      if (group.joined()) length = build(group, false, now_us, own, out);
    }
    if (length > 0) break;
  }
  forget_empty();
  settle();
  return length;
}

size_t GroupMembership::build(const Group& group, bool change, uint64_t now_us,
                              const AddressSet& own, std::span<uint8_t> out) const {
  using namespace wire;
  const uint8_t version = group.address.version;
  const size_t address_bytes = group.address.size();
  IpAddress source;
  if (out.size() < kReportBytes || !source_of(version, own, source)) return 0;
  const unsigned spoken = querier(version, now_us);
  const bool newest = spoken == (version == 4 ? 3 : 2);
  if (!newest) {
    // One message a group: a report, or that it is left (of which IGMPv1 knows nothing).
    const bool joined = group.joined();
    if (!joined && version == 4 && spoken == 1) return 0;
    const IpAddress to = joined ? group.address : version == 4 ? four(224, 0, 0, 2) : all_six(2);
    const size_t group_at = version == 4 ? igmp_field::kGroup : mld_field::kGroup;
    const size_t upper = write_headers(out, source, to, group_at + address_bytes);
    uint8_t* message = out.data() + upper;
    std::memset(message, 0, group_at);
    message[0] = version == 6  ? (joined ? mld_type::kReport1 : mld_type::kDone)
                 : !joined     ? igmp_type::kLeave
                 : spoken == 1 ? igmp_type::kReport1
                               : igmp_type::kReport2;
    std::memcpy(message + group_at, group.address.bytes.data(), address_bytes);
    const size_t length = upper + group_at + address_bytes;
    write_checksum(out.first(length), upper, version);
    return length;
  }
  struct Part {
    Record type;
    std::vector<IpAddress> sources;
  };
  std::vector<IpAddress> all;
  for (const Source& one : group.sources) all.push_back(one.address);
  const bool any = group.any_users > 0;
  std::vector<Part> parts;
  if (!change) {
    parts.push_back(any ? Part{kIsExclude, {}} : Part{kIsInclude, all});
  } else if (group.mode_changed) {
    parts.push_back(any ? Part{kToExclude, {}} : Part{kToInclude, all});
  } else {
    // Both together are within the room for all sources: what is blocked goes in a record of its own.
    if (!group.allowed.empty()) parts.push_back({kAllow, group.allowed});
    if (!group.blocked.empty() && group.allowed.size() + group.blocked.size() < kSourcesMax) {
      parts.push_back({kBlock, group.blocked});
    }
  }
  size_t upper_bytes = igmp_field::kRecords;
  for (const Part& part : parts) upper_bytes += 4 + address_bytes * (1 + part.sources.size());
  const IpAddress to = version == 4 ? four(224, 0, 0, 22) : all_six(22);
  const size_t upper = write_headers(out, source, to, upper_bytes);
  uint8_t* at = out.data() + upper;
  std::memset(at, 0, igmp_field::kRecords);
  at[0] = version == 4 ? igmp_type::kReport3 : mld_type::kReport2;
  store16(at + igmp_field::kRecordCount, static_cast<uint32_t>(parts.size()));
  at += igmp_field::kRecords;
  for (const Part& part : parts) {
    at[0] = part.type;
    at[1] = 0;
    store16(at + 2, static_cast<uint32_t>(part.sources.size()));
    std::memcpy(at + 4, group.address.bytes.data(), address_bytes);
    at += 4 + address_bytes;
    for (const IpAddress& one : part.sources) {
      std::memcpy(at, one.bytes.data(), address_bytes);
      at += address_bytes;
    }
  }
  write_checksum(out.first(upper + upper_bytes), upper, version);
  return upper + upper_bytes;
}

}  // namespace apo
