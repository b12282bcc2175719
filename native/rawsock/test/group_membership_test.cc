// Multicast membership: what is accepted, what is told to whom and how often, in all versions of IGMP
// and MLD, and the bounds; and that whatever comes, no report is malformed.
#include "ip/group_membership.h"

#include <vector>

#include "check.h"
#include "packet_builder.h"
#include "wire/checksum.h"
#include "wire/igmp.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace {

using namespace apo;
using namespace apo::test;

constexpr uint64_t kSecond = 1'000'000;

IpAddress four(uint8_t a, uint8_t b, uint8_t c, uint8_t d) {
  const uint8_t bytes[4] = {a, b, c, d};
  return IpAddress::from_bytes(4, bytes);
}

IpAddress six(uint8_t first, uint8_t second, uint8_t last) {
  uint8_t bytes[16] = {first, second};
  bytes[15] = last;
  return IpAddress::from_bytes(6, bytes);
}

const IpAddress kGroup4 = four(239, 1, 2, 3);
const IpAddress kGroup6 = six(0xff, 0x15, 7);
const IpAddress kSender = four(192, 0, 2, 1);

AddressSet own_addresses() {
  AddressSet own;
  CHECK(own.add({{four(10, 0, 0, 1), 24}, false}));
  CHECK(own.add({{six(0xfd, 0, 1), 64}, false}));
  CHECK(own.add({{six(0xfe, 0x80, 1), 64}, false}));
  return own;
}

// A report, read the slow way; every one must be well-formed.
struct Report {
  uint8_t version = 0, type = 0;
  IpAddress to, group;
  std::vector<std::pair<uint8_t, size_t>> records;  // type, sources
};

Report read(std::span<const uint8_t> packet) {
  Report report;
  report.version = packet[0] >> 4;
  const bool version6 = report.version == 6;
  const size_t upper = version6 ? 48 : 24;
  CHECK(packet.size() > upper);
  if (version6) {
    CHECK(packet[wire::ipv6_field::kHopLimit] == 1 && packet[6] == 0 && packet[40] == 58);
    CHECK(wire::load16(packet.data() + 4) == packet.size() - 40);
    CHECK(packet[8] == 0xfe && packet[9] == 0x80);
    CHECK(packet[42] == 5 && packet[43] == 2);
  } else {
    CHECK(packet[0] == 0x46 && packet[8] == 1 && packet[9] == 2 && packet[20] == 0x94);
    CHECK(wire::load16(packet.data() + 2) == packet.size());
    CHECK(wire::checksum_is_valid(wire::checksum_add(0, packet.data(), 24)));
  }
  wire::Sum sum = 0;
  const auto length = static_cast<uint32_t>(packet.size() - upper);
  if (version6) sum = wire::checksum_pseudo_header(packet.data() + 8, 16, length, 58);
  CHECK(wire::checksum_is_valid(wire::checksum_add(sum, packet.data() + upper, length)));
  report.to = IpAddress::from_bytes(report.version, packet.data() + (version6 ? 24 : 16));
  const uint8_t* message = packet.data() + upper;
  report.type = message[0];
  if (report.type != wire::igmp_type::kReport3 && report.type != wire::mld_type::kReport2) {
    report.group = IpAddress::from_bytes(report.version, message + (version6 ? 8 : 4));
    return report;
  }
  const size_t address = version6 ? 16 : 4;
  size_t at = 8;
  for (size_t n = wire::load16(message + 6); n > 0; --n) {
    CHECK(at + 4 + address <= length && message[at + 1] == 0);
    const size_t sources = wire::load16(message + at + 2);
    report.records.emplace_back(message[at], sources);
    report.group = IpAddress::from_bytes(report.version, message + at + 4);
    at += 4 + address * (1 + sources);
  }
  CHECK(at == length);
  return report;
}

std::vector<Report> take(GroupMembership& groups, uint64_t now_us) {
  static const AddressSet own = own_addresses();
  std::vector<Report> reports;
  std::array<uint8_t, GroupMembership::kReportBytes> out;
  while (const size_t length = groups.next_report(now_us, own, out)) {
    reports.push_back(read({out.data(), length}));
    CHECK(reports.size() <= 2 * GroupMembership::kGroupsMax);
  }
  return reports;
}

bool is(const Report& report, uint8_t type, uint8_t record, size_t sources) {
  return report.type == type && report.records.size() == 1 && report.records[0].first == record &&
         report.records[0].second == sources;
}

void joining_and_leaving_is_told_twice() {
  GroupMembership groups(7);
  CHECK(groups.deadline_us() == GroupMembership::kNever);
  CHECK(groups.join(kGroup4, nullptr) == 0 && groups.join(kGroup4, nullptr) == 0);
  auto reports = take(groups, kSecond);
  CHECK(reports.size() == 1 && is(reports[0], 0x22, 4, 0));
  CHECK(reports[0].to == four(224, 0, 0, 22) && reports[0].group == kGroup4);
  CHECK(groups.deadline_us() <= 2 * kSecond);
  CHECK(take(groups, 2 * kSecond).size() == 1);
  CHECK(groups.deadline_us() == GroupMembership::kNever);
  groups.leave(kGroup4, nullptr);
  CHECK(groups.deadline_us() == GroupMembership::kNever);  // the other one wants it still
  groups.leave(kGroup4, nullptr);
  reports = take(groups, 3 * kSecond);
  CHECK(reports.size() == 1 && is(reports[0], 0x22, 3, 0));
  CHECK(take(groups, 4 * kSecond).size() == 1 && take(groups, 9 * kSecond).empty());
}

void sources_are_told_one_by_one() {
  GroupMembership groups(7);
  CHECK(groups.join(kGroup4, &kSender) == 0);
  auto reports = take(groups, 0);
  CHECK(reports.size() == 1 && is(reports[0], 0x22, 5, 1));
  (void)take(groups, kSecond);
  groups.leave(kGroup4, &kSender);
  reports = take(groups, kSecond);
  CHECK(reports.size() == 1 && is(reports[0], 0x22, 6, 1));
  (void)take(groups, 2 * kSecond);
  // Every sender, too: the source alone says nothing new.
  CHECK(groups.join(kGroup4, nullptr) == 0);
  (void)take(groups, 3 * kSecond);
  (void)take(groups, 4 * kSecond);
  CHECK(groups.join(kGroup4, &kSender) == 0);
  CHECK(take(groups, 5 * kSecond).empty());
  groups.leave(kGroup4, nullptr);
  reports = take(groups, 6 * kSecond);
  CHECK(reports.size() == 1 && is(reports[0], 0x22, 3, 1));
}

void mld_is_the_same_with_longer_addresses() {
  GroupMembership groups(7);
  const IpAddress sender = six(0x20, 1, 9);
  CHECK(groups.join(kGroup6, nullptr) == 0);
  auto reports = take(groups, 0);
  CHECK(reports.size() == 1 && is(reports[0], 143, 4, 0) && reports[0].to == six(0xff, 2, 22));
  CHECK(groups.join(six(0xff, 0x35, 8), &sender) == 0);
  reports = take(groups, 0);
  CHECK(reports.size() == 1 && is(reports[0], 143, 5, 1));
  // Nobody is told of all nodes, nor of groups of this machine alone.
  CHECK(groups.join(six(0xff, 2, 1), nullptr) == 0 && groups.join(six(0xff, 1, 9), nullptr) == 0);
  CHECK(take(groups, 0).empty());
}

void queries_are_answered_within_their_time() {
  GroupMembership groups(7);
  CHECK(groups.join(kGroup4, nullptr) == 0 && groups.join(four(239, 9, 9, 9), nullptr) == 0);
  for (uint64_t s = 0; s < 4; ++s) (void)take(groups, s * kSecond);
  const uint8_t general[12] = {0x11, 100};
  groups.query(4, general, 10 * kSecond);
  CHECK(groups.deadline_us() < 20 * kSecond);
  CHECK(take(groups, 20 * kSecond).size() == 2);
  uint8_t specific[12] = {0x11, 10, 0, 0, 239, 1, 2, 3};
  groups.query(4, specific, 30 * kSecond);
  auto reports = take(groups, 31 * kSecond);
  CHECK(reports.size() == 1 && is(reports[0], 0x22, 2, 0) && reports[0].group == kGroup4);
  specific[7] = 4;  // somebody else's
  groups.query(4, specific, 40 * kSecond);
  CHECK(groups.deadline_us() == GroupMembership::kNever);
}

void older_queriers_get_what_they_understand() {
  GroupMembership groups(7);
  const uint8_t second[8] = {0x11, 50};
  groups.query(4, second, 0);
  CHECK(groups.join(kGroup4, nullptr) == 0);
  auto reports = take(groups, kSecond);
  CHECK(reports.size() == 1 && reports[0].type == 0x16 && reports[0].to == kGroup4);
  (void)take(groups, 2 * kSecond);
  groups.leave(kGroup4, nullptr);
  reports = take(groups, 3 * kSecond);
  CHECK(reports.size() == 1 && reports[0].type == 0x17 && reports[0].to == four(224, 0, 0, 2));
  (void)take(groups, 4 * kSecond);
  const uint8_t first[8] = {0x11, 0};
  groups.query(4, first, 5 * kSecond);
  CHECK(groups.join(kGroup4, nullptr) == 0);
  reports = take(groups, 6 * kSecond);
  CHECK(reports.size() == 1 && reports[0].type == 0x12);
  (void)take(groups, 7 * kSecond);
  groups.leave(kGroup4, nullptr);
  CHECK(take(groups, 8 * kSecond).empty());
  // Not for ever.
  const uint64_t later = 6 * kSecond + GroupMembership::kOlderQuerierUs;
  CHECK(groups.join(kGroup4, nullptr) == 0);
  reports = take(groups, later);
  CHECK(reports.size() == 1 && reports[0].type == 0x22);
  const uint8_t mld1[24] = {130};
  groups.query(6, mld1, later);
  CHECK(groups.join(kGroup6, nullptr) == 0);
  reports = take(groups, later);
  CHECK(reports.size() == 1 && reports[0].type == 131 && reports[0].to == kGroup6);
  (void)take(groups, later + kSecond);
  groups.leave(kGroup6, nullptr);
  reports = take(groups, later + 2 * kSecond);
  CHECK(reports.size() == 1 && reports[0].type == 132 && reports[0].to == six(0xff, 2, 2));
}

void what_is_accepted_is_what_was_joined() {
  GroupMembership groups(7);
  GroupView view;
  groups.refresh(view);
  CHECK(view.empty());
  CHECK(groups.join(kGroup4, &kSender) == 0 && groups.join(kGroup6, nullptr) == 0);
  groups.refresh(view);
  const IpAddress stranger = four(192, 0, 2, 2);
  CHECK(view.contains(4, kGroup4.bytes.data(), kSender.bytes.data()));
  CHECK(!view.contains(4, kGroup4.bytes.data(), stranger.bytes.data()));
  CHECK(view.contains(6, kGroup6.bytes.data(), kPeer6));
  groups.leave(kGroup4, &kSender);
  groups.leave(kGroup6, nullptr);
  groups.refresh(view);
  CHECK(view.empty());
}

void it_is_bounded() {
  GroupMembership groups(7);
  CHECK(groups.join(four(10, 0, 0, 1), nullptr) == EINVAL);
  CHECK(groups.join(kGroup6, &kSender) == EINVAL);
  for (size_t i = 0; i < GroupMembership::kSourcesMax; ++i) {
    const IpAddress source = four(192, 0, 2, static_cast<uint8_t>(i));
    CHECK(groups.join(kGroup4, &source) == 0);
  }
  const IpAddress more = four(192, 0, 3, 1);
  CHECK(groups.join(kGroup4, &more) == ENOBUFS);
  auto reports = take(groups, 0);
  CHECK(reports.size() == 1 && is(reports[0], 0x22, 5, GroupMembership::kSourcesMax));
  for (size_t i = 1; i < GroupMembership::kGroupsMax; ++i) {
    CHECK(groups.join(four(239, 2, 0, static_cast<uint8_t>(i)), nullptr) == 0);
  }
  CHECK(groups.join(four(239, 3, 0, 0), nullptr) == ENOBUFS);
}

// Joins, leaves, queries of every length and time, at random.
void whatever_comes_reports_are_well_formed() {
  uint32_t state = 0x1234567;
  const auto random = [&state](uint32_t below) {
    state = state * 1664525 + 1013904223;
    return (state >> 8) % below;
  };
  GroupMembership groups(3);
  GroupView view;
  uint64_t now_us = 0;
  for (int step = 0; step < 200'000; ++step) {
    const bool version6 = random(2) == 1;
    const auto last = static_cast<uint8_t>(random(6));
    const IpAddress group = version6 ? six(0xff, 0x15, last) : four(239, 0, 0, last);
    const auto from = static_cast<uint8_t>(random(40));
    const IpAddress source = version6 ? six(0x20, 1, from) : four(192, 0, 2, from);
    const IpAddress* of = random(3) == 0 ? nullptr : &source;
    switch (random(5)) {
      case 0:
      case 1:
        (void)groups.join(group, of);
        break;
      case 2:
        groups.leave(group, of);
        break;
      case 3: {
        uint8_t query[64];
        for (uint8_t& byte : query) byte = static_cast<uint8_t>(random(256));
        if (random(2) == 0) std::memset(query + (version6 ? 8 : 4), 0, 16);
        groups.query(version6 ? 6 : 4, {query, random(sizeof query + 1)}, now_us);
        break;
      }
      default:
        now_us += random(2'000'000);
    }
    groups.refresh(view);
    (void)take(groups, now_us);
    CHECK(groups.deadline_us() > now_us);
  }
}

}  // namespace

int main() {
  joining_and_leaving_is_told_twice();
  sources_are_told_one_by_one();
  mld_is_the_same_with_longer_addresses();
  queries_are_answered_within_their_time();
  older_queriers_get_what_they_understand();
  what_is_accepted_is_what_was_joined();
  it_is_bounded();
  whatever_comes_reports_are_well_formed();
}
