// The neighbour cache: its states by the clock, its bounds, and a run against a simple model.
#include <algorithm>
#include <map>
#include <random>

#include "check.h"
#include "station_support.h"

namespace apo::test {
namespace {

class RecordingSink final : public NeighbourSink {
 public:
  void ask(const IpAddress& address, const MacAddress* last) override {
    asked.push_back(address);
    by_unicast = last != nullptr;
  }
  void send(const MacAddress& to, std::span<const uint8_t> packet,
            const Offload& offload) override {
    sent_to = to;
    sent.emplace_back(packet.begin(), packet.end());
    last_offload = offload;
  }
  void failed(const IpAddress& address) override { gone.push_back(address); }
  void count(LinkCounter counter, uint64_t amount = 1) override {
    counts[static_cast<size_t>(counter)] += amount;
  }
  [[nodiscard]] uint64_t counted(LinkCounter counter) const {
    return counts[static_cast<size_t>(counter)];
  }

  std::vector<IpAddress> asked;
  std::vector<Bytes> sent;
  std::vector<IpAddress> gone;
  MacAddress sent_to;
  Offload last_offload;
  bool by_unicast = false;
  std::array<uint64_t, kLinkCounters> counts{};
};

using State = NeighbourState;

bool is(const Neighbours& cache, const IpAddress& address, uint64_t now_us, State wanted) {
  State state;
  return cache.state_of(address, now_us, &state) && state == wanted;
}

LinkCounter send(Neighbours& cache, const IpAddress& to, const Bytes& packet, uint64_t now_us,
                 NeighbourSink& sink) {
  return cache.resolve(to, packet, {}, now_us, sink).result;
}

void lives_through_its_states() {
  Neighbours cache({1, 2}, 16);
  RecordingSink sink;
  const IpAddress peer = ip4(10, 0, 0, 2);
  CHECK(cache.deadline_us() == Neighbours::kNever);
  const Offload offload{ChecksumState::kPartial, GsoKind::kTcp4, 1448};
  CHECK(cache.resolve(peer, Bytes{1}, offload, 0, sink).result == LinkCounter::kTxParked);
  CHECK(sink.asked.size() == 1 && cache.deadline_us() == kSecond && cache.waiting() == 1);
  CHECK(cache.learn(peer, {.mac = kPeerMac, .solicited = true}, 10, sink));
  CHECK(sink.sent.size() == 1 && sink.sent[0] == Bytes{1} && sink.sent_to == kPeerMac);
  CHECK(sink.last_offload.gso_bytes == 1448 && cache.waiting() == 0);
  CHECK(is(cache, peer, 10, State::kReachable) && cache.deadline_us() == Neighbours::kNever);
  // Not used, it turns stale and stays so; used, it is asked 5 s later, by unicast.
  const uint64_t late = 31 * kSecond;
  CHECK(is(cache, peer, late, State::kStale));
  CHECK(cache.resolve(peer, Bytes{2}, {}, late, sink).mac != nullptr);
  CHECK(is(cache, peer, late, State::kDelay) && cache.deadline_us() == late + 5 * kSecond);
  cache.tick(late + 5 * kSecond, sink);
  CHECK(is(cache, peer, late, State::kProbe) && sink.asked.size() == 2 && sink.by_unicast);
  // A confirmation without an address is enough now.
  CHECK(cache.learn(peer, {.mac = {}, .solicited = true}, late + 5 * kSecond, sink));
  CHECK(is(cache, peer, late + 5 * kSecond, State::kReachable));
  // Three questions without an answer: forgotten.
  const uint64_t later = 100 * kSecond;
  CHECK(cache.resolve(peer, Bytes{2}, {}, later, sink).mac != nullptr);
  for (uint64_t i = 5; i <= 8; ++i) {
    CHECK(cache.size() == 1);
    cache.tick(later + i * kSecond, sink);
  }
  CHECK(sink.asked.size() == 5 && cache.size() == 0 && sink.gone.size() == 1);
  CHECK(sink.counted(LinkCounter::kNeighbourFailed) == 1);
}

void gives_up_on_the_silent() {
  Neighbours cache({1, 2}, 16);
  RecordingSink sink;
  const IpAddress peer = ip6(2);
  for (uint8_t i = 0; i < Neighbours::kWaitingPerNeighbourMax + 2; ++i) {
    CHECK(send(cache, peer, Bytes{i}, 0, sink) == LinkCounter::kTxParked);
  }
  // The newest wait; the two oldest made room.
  CHECK(cache.waiting() == Neighbours::kWaitingPerNeighbourMax &&
        sink.counted(LinkCounter::kNeighbourDroppedDisplaced) == 2);
  for (uint64_t i = 1; i <= 3; ++i) cache.tick(i * kSecond, sink);
  CHECK(sink.asked.size() == 3 && sink.counted(LinkCounter::kNeighbourDroppedUnreachable) ==
                                      Neighbours::kWaitingPerNeighbourMax);
  CHECK(cache.size() == 0 && cache.waiting() == 0 && sink.sent.empty());
}

void learns_nothing_unasked() {
  Neighbours cache({1, 2}, 16);
  RecordingSink sink;
  const IpAddress peer = ip4(10, 0, 0, 2);
  CHECK(!cache.learn(peer, {.mac = kPeerMac, .solicited = true}, 0, sink) && cache.size() == 0);
  CHECK(send(cache, peer, {}, 0, sink) == LinkCounter::kTxParked);
  CHECK(cache.learn(peer, {.mac = {}, .solicited = true}, 0, sink));  // no address, no use
  CHECK(is(cache, peer, 0, State::kIncomplete));
  CHECK(cache.learn(peer, {.mac = kPeerMac, .solicited = true}, 0, sink));
  // A claim that does not override makes a confirmed one doubtful, and no more.
  CHECK(cache.learn(peer, {.mac = kOtherMac, .solicited = true, .override = false}, 1, sink));
  CHECK(is(cache, peer, 1, State::kStale));
  CHECK(*cache.resolve(peer, {}, {}, 1, sink).mac == kPeerMac);
  // One that overrides is believed, but as nobody was asked just now, not as confirmed.
  CHECK(cache.learn(peer, {.mac = kOtherMac, .solicited = true}, 1, sink));
  CHECK(is(cache, peer, 1, State::kStale));
  CHECK(*cache.resolve(peer, {}, {}, 1, sink).mac == kOtherMac);
  CHECK(sink.counted(LinkCounter::kNeighbourChanged) == 1);
}

void is_bounded() {
  Neighbours cache({1, 2}, 4);
  RecordingSink sink;
  uint64_t now = 0;
  for (uint8_t i = 1; i <= 4; ++i) {
    CHECK(send(cache, ip4(10, 0, 0, i), Bytes{i}, now, sink) == LinkCounter::kTxParked);
    CHECK(cache.learn(ip4(10, 0, 0, i), {.mac = kPeerMac, .solicited = true}, now, sink));
  }
  // The first is used again, so the second is the one that goes.
  CHECK(cache.resolve(ip4(10, 0, 0, 1), {}, {}, now, sink).mac);
  CHECK(send(cache, ip4(10, 0, 0, 9), {}, now, sink) == LinkCounter::kTxParked);
  State state;
  CHECK(cache.size() == 4 && !cache.state_of(ip4(10, 0, 0, 2), now, &state));
  CHECK(cache.state_of(ip4(10, 0, 0, 1), now, &state));
  CHECK(sink.counted(LinkCounter::kNeighbourEvicted) == 1);

  // Many strangers: at most 256 wait, the oldest give way, and questions have a budget.
  Neighbours large({1, 2});
  const auto stranger = [](uint32_t i) {
    return ip4(10, 1, static_cast<uint8_t>(i >> 8), static_cast<uint8_t>(i));
  };
  RecordingSink flood;
  now = 10 * kSecond;
  for (uint32_t i = 0; i < 1000; ++i) {
    (void)send(large, stranger(i), Bytes(100), now, flood);
  }
  CHECK(flood.asked.size() == Neighbours::kAskBurst && large.size() == Neighbours::kAskBurst);
  CHECK(flood.counted(LinkCounter::kNeighbourLimited) == 1000 - Neighbours::kAskBurst);
  now += kSecond / 10;
  for (uint32_t i = 2000; i < 2050; ++i) {
    CHECK(send(large, stranger(i), Bytes(100), now, flood) == LinkCounter::kTxParked);
  }
  CHECK(large.waiting() == Neighbours::kWaitingMax && large.size() == Neighbours::kWaitingMax);
  CHECK(!large.state_of(stranger(0), now, &state) && large.state_of(stranger(2049), now, &state));
  large.clear(flood);
  CHECK(large.size() == 0 && large.waiting() == 0 && large.deadline_us() == Neighbours::kNever);
}

// What can be said of every run: each packet's fate is told once, what the cache knows is what was
// last believed, and no bound is passed.
void keeps_to_the_model(uint32_t seed) {
  std::mt19937 random(seed);
  const auto below = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
  const size_t capacity = 1 + below(12);
  Neighbours cache({seed, ~seed}, capacity);
  RecordingSink sink;
  std::map<uint8_t, MacAddress> believed;  // of those that the cache may know
  uint64_t now = 0;
  uint64_t offered = 0;
  uint64_t refused = 0;
  for (int step = 0; step < 3000; ++step) {
    const auto peer = static_cast<uint8_t>(below(20));
    const IpAddress address = peer % 2 ? ip4(10, 0, 0, peer) : ip6(peer);
    MacAddress mac = kPeerMac;
    mac.bytes[5] = static_cast<uint8_t>(below(3));
    State before = State::kStale;
    const bool known = cache.state_of(address, now, &before);
    switch (below(4)) {
      case 0: {
        const auto answer = cache.resolve(address, Bytes(1 + below(3000)), {}, now, sink);
        if (answer.mac) {
          CHECK(known && before != State::kIncomplete && *answer.mac == believed.at(peer));
        } else {
          ++offered;
          if (answer.result != LinkCounter::kTxParked) ++refused;
          CHECK(!known || before == State::kIncomplete);
        }
        break;
      }
      case 1: {
        const bool override = below(2) == 0;
        const bool learnt = cache.learn(
            address, {.mac = mac, .solicited = below(2) == 0, .override = override}, now, sink);
        CHECK(learnt == known);
        if (learnt && (override || before == State::kIncomplete)) believed[peer] = mac;
        break;
      }
      case 2:
        now += below(3'000'000);
        cache.tick(now, sink);
        CHECK(cache.deadline_us() > now);
        break;
      default: {
        State after;
        CHECK(cache.state_of(address, now, &after) == known && (!known || after == before));
      }
    }
    CHECK(cache.size() <= capacity && cache.waiting() <= Neighbours::kWaitingMax);
    const uint64_t dropped = sink.counted(LinkCounter::kNeighbourDroppedUnreachable) +
                             sink.counted(LinkCounter::kNeighbourDroppedDisplaced);
    CHECK(offered == sink.sent.size() + dropped + refused + cache.waiting());
  }
  cache.clear(sink);
  CHECK(cache.size() == 0 && cache.waiting() == 0);
}

}  // namespace
}  // namespace apo::test

int main() {
  using namespace apo::test;
  lives_through_its_states();
  gives_up_on_the_silent();
  learns_nothing_unasked();
  is_bounded();
  for (uint32_t seed = 1; seed <= 60; ++seed) keeps_to_the_model(seed);
}
