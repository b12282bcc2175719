// The guard: whom it lets pass, the rate limit against a plain token bucket, the record of
// offenders, and changes from other threads while views are at work.
#include "guard/guard.h"

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "check.h"
#include "packet_builder.h"

namespace {

using namespace apo;
using test::Bytes;
using Random = std::mt19937_64;

constexpr HashKey kKey{0x0123456789abcdef, 0xfedcba9876543210};
constexpr uint64_t kSecond = 1'000'000;

Bytes packet4(uint32_t source, uint8_t ttl = 64, size_t payload = 0) {
  uint8_t from[4];
  wire::store32(from, source);
  Bytes bytes = test::ipv4(17, Bytes(8 + payload), from);
  bytes[8] = ttl;
  return bytes;
}

Bytes packet6(uint64_t subnet, uint64_t host) {
  uint8_t from[16] = {0x20, 0x01, 0x0d, 0xb8};
  wire::store32(from + 4, static_cast<uint32_t>(subnet));
  wire::store32(from + 8, static_cast<uint32_t>(host >> 32));
  wire::store32(from + 12, static_cast<uint32_t>(host));
  return test::ipv6(17, Bytes(8), from);
}

IpPrefix prefix4(uint32_t address, uint8_t bits) {
  uint8_t at[4];
  wire::store32(at, address);
  return {IpAddress::from_bytes(4, at), bits};
}

constexpr uint32_t kTen = 10u << 24;

void lists_and_limit_in_their_order() {
  const auto guard = std::make_shared<Guard>(kKey);
  GuardView view(guard);
  view.begin_batch();
  const Bytes packet = packet4(kTen + 5);
  CHECK(view.admit(packet, 1) == LinkCounter::kRxPackets);

  const std::vector<IpPrefix> blocked = {prefix4(kTen, 8), prefix4(kTen + 256, 24)};
  const auto outcome = guard->change(Guard::Change::kAdd, kListedBlocked, blocked);
  CHECK(outcome.taken == 2 && outcome.changed == 2);
  CHECK(view.admit(packet, 2) == LinkCounter::kRxDroppedBlacklist);
  const std::vector<IpPrefix> allowed = {prefix4(kTen + 5, 32), prefix4(kTen + 256, 24)};
  CHECK(guard->change(Guard::Change::kAdd, kListedAllowed, allowed).changed == 2);
  CHECK(view.admit(packet, 3) == LinkCounter::kRxPackets);
  CHECK(view.admit(packet4(kTen + 6), 3) == LinkCounter::kRxDroppedBlacklist);
  // On both lists: allowed.
  CHECK(view.admit(packet4(kTen + 256), 3) == LinkCounter::kRxPackets);
  CHECK(guard->lists().entries(kListedBlocked) == 2 && guard->lists().entries() == 3);

  // The allowed pass the rate limit, too; the others have one packet each.
  CHECK(guard->set_limit({1, 1, 32, 64}));
  CHECK(!guard->set_limit({1, 0, 32, 64}) && !guard->set_limit({1, 1, 33, 64}));
  CHECK(view.admit(packet4(7), 4) == LinkCounter::kRxPackets);  // not taken up before the batch
  view.begin_batch();
  for (int i = 0; i < 5; ++i) {
    CHECK(view.admit(packet, 4) == LinkCounter::kRxPackets);
    CHECK(view.admit(packet4(7), 4) ==
          (i == 0 ? LinkCounter::kRxPackets : LinkCounter::kRxDroppedRateLimit));
  }
  CHECK(guard->set_limit({}));
  view.begin_batch();
  CHECK(view.admit(packet4(7), 4) == LinkCounter::kRxPackets);

  // What has no source is the input check's matter.
  for (size_t size = 0; size < packet.size(); ++size) {
    const auto verdict = view.admit(std::span(packet).first(size), 5);
    CHECK(size >= 20 || verdict == LinkCounter::kRxPackets);
  }
}

// A bucket as the textbook has it, in fractions of a token.
struct Bucket {
  double tokens;
  uint64_t at_us;
  bool take(double rate, double burst, uint64_t now_us) {
    tokens = std::min(burst, tokens + rate * static_cast<double>(now_us - at_us) / 1e6);
    at_us = now_us;
    if (tokens < 1 - 1e-3) return false;
    tokens -= 1;
    return true;
  }
};

void rate_is_a_token_bucket_for_each_source(bool shared) {
  Random random(1);
  RateTable table(kKey);
  const RateLimit limit{1000, 20, 24, 64};
  const RatePace pace(limit);
  CHECK(pace.is_limited() && !RatePace(RateLimit{}).is_limited());
  std::map<uint32_t, Bucket> model;
  uint64_t now_us = 5 * kSecond;
  size_t passed = 0, refused = 0, differ = 0;
  for (int i = 0; i < 200'000; ++i) {
    now_us += random() % 40;
    // Few sources send much, and more send little.
    const uint32_t source = static_cast<uint32_t>(random() % (random() % 2 == 0 ? 4 : 200)) << 8;
    const Bytes packet = packet4(kTen + source + static_cast<uint32_t>(random() % 256));
    const bool taken = table.take(pace, packet_source(packet), now_us, shared);
    auto [bucket, fresh] = model.try_emplace(source, Bucket{20, now_us});
    (taken ? passed : refused) += 1;
    if (taken == bucket->second.take(1000, 20, now_us)) continue;
    // Rounding may tell them apart at the edge of a token; then the model follows.
    ++differ;
    bucket->second.tokens += taken ? -1 : 1;
  }
  CHECK(passed > 10'000 && refused > 10'000);
  CHECK(differ <= passed / 1000);
}

void the_source_is_its_prefix() {
  RateTable table(kKey);
  const auto take = [&](const RateLimit& limit, const Bytes& packet) {
    return table.take(RatePace(limit), packet_source(packet), kSecond, false);
  };
  const RateLimit subnets{1, 1, 32, 64};
  CHECK(take(subnets, packet6(1, 1)) && !take(subnets, packet6(1, 2)));
  CHECK(take(subnets, packet6(2, 1)));
  const RateLimit hosts{1, 1, 32, 128};
  CHECK(take(hosts, packet6(3, 1)) && take(hosts, packet6(3, 2)) && !take(hosts, packet6(3, 1)));
  const RateLimit all{1, 1, 0, 0};
  CHECK(take(all, packet4(1)) && !take(all, packet4(0xffffffff)));
  CHECK(take(all, packet6(4, 1)) && !take(all, packet6(5, 1)));
}

// Two queues of one link: a source whose flows are spread over both has one rate.
void views_share_the_buckets() {
  const auto guard = std::make_shared<Guard>(kKey);
  GuardView first(guard), second(guard);
  CHECK(guard->set_limit({1, 10, 32, 64}));
  first.begin_batch();
  second.begin_batch();
  const Bytes packet = packet4(kTen);
  int passed = 0;
  for (int i = 0; i < 20; ++i) {
    passed += (i % 2 == 0 ? first : second).admit(packet, kSecond) == LinkCounter::kRxPackets;
  }
  CHECK(passed == 10);
}

// More sources than buckets: a source that is over its rate stays refused, however many others come.
void many_sources_free_nobody() {
  RateTable table(kKey);
  const RatePace pace(RateLimit{10, 5, 32, 64});
  Random random(2);
  const Bytes heavy = packet4(kTen);
  size_t heavy_passed = 0, others_passed = 0;
  uint64_t now_us = kSecond;
  for (int i = 0; i < 200'000; ++i) {
    if (i % 10 == 0) ++now_us;
    heavy_passed += table.take(pace, packet_source(heavy), now_us, false);
    const Bytes other = packet4(static_cast<uint32_t>(random()));
    others_passed += table.take(pace, packet_source(other), now_us, false);
  }
  CHECK(heavy_passed == 5);  // 20 ms: not one interval
  // The others share what 65,536 buckets hold.
  CHECK(others_passed > 65'536 && others_passed <= 65'536 * 5);
}

// Ten thousand years of clock are not needed; a limit that is changed, or a clock set back, are.
void an_old_limit_does_not_outlive_itself() {
  RateTable table(kKey);
  const Bytes packet = packet4(kTen);
  const auto take = [&](const RateLimit& limit, uint64_t now_us) {
    return table.take(RatePace(limit), packet_source(packet), now_us, false);
  };
  const RateLimit slow{1, 1000, 32, 64}, fast{1000, 1, 32, 64};
  for (int i = 0; i < 1000; ++i) CHECK(take(slow, kSecond));
  CHECK(!take(slow, kSecond));
  CHECK(!take(fast, kSecond) && take(fast, kSecond + 1000));
  CHECK(take(fast, 1'000'000 * kSecond));
  CHECK(!take(fast, 50) && take(fast, 50 + 1000));
}

void distances() {
  CHECK(hops_from(64) == 0 && hops_from(63) == 1 && hops_from(33) == 31 && hops_from(32) == 0);
  CHECK(hops_from(0) == 32 && hops_from(65) == 63 && hops_from(128) == 0 && hops_from(129) == 126);
  CHECK(hops_from(255) == 0 && hops_from(240) == 15);
}

void offenders_are_recorded() {
  const auto guard = std::make_shared<Guard>(kKey);
  {
    GuardView view(guard);
    const Bytes first = packet4(kTen + 9, 57, 100);
    view.dropped(LinkCounter::kRxDroppedTcpNull, first, 1000);
    view.dropped(LinkCounter::kRxDroppedWorkerFull, packet4(kTen + 8), 1500);  // no offence
    view.dropped(LinkCounter::kRxDroppedLand, packet4(kTen + 9, 60), 2000);
    view.dropped(LinkCounter::kRxDroppedHeader, Bytes{0x45, 1}, 2500);  // from nobody
    view.dropped(LinkCounter::kRxDroppedBlacklist, packet6(1, 2), 3000);
    const auto found = guard->offenders();
    CHECK(found.size() == 2);
    CHECK(found[0].address.version == 6 && found[0].count == 1 && found[0].distance == 0);
    CHECK(found[0].byte_count == 48 && found[0].last_reason == LinkCounter::kRxDroppedBlacklist);
    const Offender& four = found[1];
    CHECK(four.address == IpAddress::from_bytes(4, &first[12]));
    CHECK(four.count == 2 && four.first_us == 1000 && four.last_us == 2000 && four.distance == 7);
    CHECK(four.last_reason == LinkCounter::kRxDroppedLand && four.byte_count == 64);
    CHECK(std::equal(four.bytes.begin(), four.bytes.end(), first.begin()));
  }
  // The record outlives the view, another view's is added to it, and the next view goes on.
  GuardView again(guard), other(guard);
  other.dropped(LinkCounter::kRxDroppedTcpFin, packet4(kTen + 9, 250), 500);
  again.dropped(LinkCounter::kRxDroppedTcpFin, packet4(kTen + 9), 4000);
  const auto found = guard->offenders();
  CHECK(found.size() == 2 && found[0].count == 4);
  CHECK(found[0].first_us == 500 && found[0].last_us == 4000 && found[0].distance == 5);
  CHECK(found[0].last_reason == LinkCounter::kRxDroppedTcpFin && found[0].byte_count == 28);
}

void the_table_is_bounded_and_keeps_the_latest() {
  OffenderTable table(kKey);
  // Far enough apart that nothing is sampled away.
  for (uint32_t i = 0; i < 5000; ++i) {
    table.dropped(LinkCounter::kRxDroppedLand, packet4(kTen + i), (i + 1) * kSecond);
  }
  std::vector<Offender> found;
  table.read(found);
  CHECK(found.size() > 1000 && found.size() <= OffenderTable::kOffendersMax);
  std::set<IpAddress,
           decltype([](const IpAddress& a, const IpAddress& b) { return a.bytes < b.bytes; })>
      addresses;
  uint64_t oldest = UINT64_MAX;
  for (const Offender& one : found) {
    addresses.insert(one.address);
    oldest = std::min(oldest, one.first_us);
    CHECK(one.count == 1);
  }
  CHECK(addresses.size() == found.size());
  CHECK(oldest > 2500 * kSecond);
}

// A flood of a million packets a second: few are entered, and counts are near the
// truth.
void floods_are_sampled() {
  OffenderTable table(kKey);
  const Bytes loud = packet4(kTen + 1), quiet = packet4(kTen + 2);
  uint64_t now_us = kSecond;
  uint64_t louds = 0, quiets = 0;
  for (int i = 0; i < 300'000; ++i, ++now_us) {
    const bool is_quiet = i % 4 == 3;
    (is_quiet ? quiets : louds) += 1;
    table.dropped(LinkCounter::kRxDroppedLand, is_quiet ? quiet : loud, now_us);
  }
  std::vector<Offender> found;
  table.read(found);
  CHECK(found.size() == 2);
  for (const Offender& one : found) {
    const bool is_quiet = one.address.bytes[3] == 2;
    const double ratio =
        static_cast<double>(one.count) / static_cast<double>(is_quiet ? quiets : louds);
    CHECK(ratio > 0.8 && ratio < 1.25);
  }
  // After the flood every packet counts again.
  now_us += kSecond;
  table.dropped(LinkCounter::kRxDroppedTcpNull, packet4(kTen + 3), now_us);
  now_us += kSecond;
  table.dropped(LinkCounter::kRxDroppedTcpNull, packet4(kTen + 3), now_us);
  found.clear();
  table.read(found);
  const auto third = std::find_if(found.begin(), found.end(),
                                  [](const Offender& one) { return one.address.bytes[3] == 3; });
  CHECK(third != found.end());
  CHECK(third->last_us == now_us);
}

// A flood of many sources in one moment, before any rate is known: the share that is entered falls at
// once, and each one entered stands for many.
void a_sudden_flood_is_sampled_at_once() {
  OffenderTable table(kKey);
  for (uint32_t i = 0; i < 100'000; ++i) {
    table.dropped(LinkCounter::kRxDroppedLand, packet4(kTen + i), kSecond);
  }
  std::vector<Offender> found;
  table.read(found);
  uint64_t sum = 0;
  for (const Offender& one : found) sum += one.count;
  CHECK(sum > 20'000 && sum <= 200'000);
}

// Two views at work, while one thread changes lists and limits and another reads the offenders.
void changes_from_other_threads() {
  const auto guard = std::make_shared<Guard>(kKey);
  std::atomic<int> running{2};
  const auto work = [&](uint32_t seed) {
    GuardView view(guard);
    Random random(seed);
    for (uint64_t now_us = kSecond; now_us < kSecond + 1000; ++now_us) {
      view.begin_batch();
      for (int i = 0; i < 16; ++i) {
        const Bytes packet = packet4(kTen + static_cast<uint32_t>(random() % 4096));
        const LinkCounter verdict = view.admit(packet, now_us);
        if (verdict != LinkCounter::kRxPackets) view.dropped(verdict, packet, now_us);
      }
    }
    --running;
  };
  std::thread first(work, 1), second(work, 2);
  std::thread reader([&] {
    while (running.load() > 0) {
      for (const Offender& one : guard->offenders()) {
        CHECK(one.address.version == 4 && one.address.bytes[0] == 10 && one.count > 0);
        CHECK(one.byte_count == 28 && one.bytes[0] == 0x45);
        CHECK(std::equal(&one.bytes[12], &one.bytes[16], one.address.bytes.begin()));
      }
    }
  });
  Random random(3);
  while (running.load() > 0) {
    std::vector<IpPrefix> prefixes;
    for (int i = 0; i < 100; ++i) {
      prefixes.push_back(prefix4(kTen + static_cast<uint32_t>(random() % 4096),
                                 static_cast<uint8_t>(20 + random() % 13)));
    }
    const uint8_t list = random() % 2 == 0 ? kListedBlocked : kListedAllowed;
    CHECK(guard->change(Guard::Change::kAdd, list, prefixes).taken == prefixes.size());
    CHECK(guard->set_limit({1 + static_cast<uint32_t>(random() % 1000), 1, 32, 64}));
    CHECK(guard->change(Guard::Change::kRemove, list, prefixes).taken == prefixes.size());
  }
  first.join();
  second.join();
  reader.join();
  CHECK(guard->lists().entries() == 0);
}

}  // namespace

int main() {
  lists_and_limit_in_their_order();
  rate_is_a_token_bucket_for_each_source(false);
  rate_is_a_token_bucket_for_each_source(true);
  the_source_is_its_prefix();
  views_share_the_buckets();
  many_sources_free_nobody();
  an_old_limit_does_not_outlive_itself();
  distances();
  offenders_are_recorded();
  the_table_is_bounded_and_keeps_the_latest();
  floods_are_sampled();
  a_sudden_flood_is_sampled_at_once();
  changes_from_other_threads();
}
