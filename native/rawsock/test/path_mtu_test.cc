// Path MTUs: what is learned and what is not believed, that only time raises one, and the bound.
#include "ip/path_mtu.h"
#include "check.h"
#include "packet_builder.h"

namespace {

using namespace apo;
using namespace apo::test;
using Learned = PathMtuCache::Learned;

constexpr uint64_t kMinuteUs = 60'000'000;

void what_is_told_is_remembered() {
  PathMtuCache cache({1, 2});
  CHECK(cache.mtu_for(4, kPeer4, 1500, 0) == 1500);
  CHECK(cache.learn(4, kPeer4, 1400, 1500, 1500, 0) == Learned::kLowered);
  CHECK(cache.learn(6, kPeer6, 1300, 1500, 1500, 0) == Learned::kLowered);
  CHECK(cache.mtu_for(4, kPeer4, 1500, 1) == 1400 && cache.mtu_for(6, kPeer6, 1500, 1) == 1300);
  CHECK(cache.mtu_for(4, kOwn4, 1500, 1) == 1500 && cache.mtu_for(6, kOwn6, 1500, 1) == 1500);
  CHECK(cache.mtu_for(4, kPeer4, 1280, 1) == 1280);  // the link's is the bound
  CHECK(cache.learn(4, kPeer4, 1300, 1400, 1500, 2) == Learned::kLowered);
  CHECK(cache.mtu_for(4, kPeer4, 1500, 3) == 1300 && cache.size() == 2);
}

void nothing_raises_it_but_time() {
  PathMtuCache cache({1, 2});
  CHECK(cache.learn(4, kPeer4, 1000, 1500, 1500, 0) == Learned::kLowered);
  CHECK(cache.learn(4, kPeer4, 1400, 1500, 1500, kMinuteUs) == Learned::kKnown);
  CHECK(cache.learn(4, kPeer4, 1000, 1500, 1500, kMinuteUs) == Learned::kKnown);
  CHECK(cache.mtu_for(4, kPeer4, 1500, 10 * kMinuteUs - 1) == 1000);
  CHECK(cache.mtu_for(4, kPeer4, 1500, 10 * kMinuteUs) == 1500);
  // Tried again, it is told again: this may be more than before.
  CHECK(cache.learn(4, kPeer4, 1400, 1500, 1500, 11 * kMinuteUs) == Learned::kLowered);
  CHECK(cache.mtu_for(4, kPeer4, 1500, 12 * kMinuteUs) == 1400 && cache.size() == 1);
}

void what_cannot_be_is_ignored() {
  PathMtuCache cache({1, 2});
  CHECK(cache.learn(4, kPeer4, 1500, 1500, 9000, 0) == Learned::kIgnored);
  CHECK(cache.learn(4, kPeer4, 1400, 1200, 9000, 0) == Learned::kIgnored);
  CHECK(cache.learn(4, kPeer4, 68, 576, 1500, 0) == Learned::kIgnored);
  CHECK(cache.learn(6, kPeer6, 1279, 1500, 1500, 0) == Learned::kIgnored);
  CHECK(cache.learn(6, kPeer6, 0, 1500, 1500, 0) == Learned::kIgnored);
  CHECK(cache.size() == 0);
  // No lower than the floor.
  CHECK(cache.learn(4, kPeer4, 68, 1500, 1500, 0) == Learned::kLowered);
  CHECK(cache.mtu_for(4, kPeer4, 1500, 0) == 576);
  PathMtuLimits limits;
  limits.ipv4_floor = 68;
  PathMtuCache low({1, 2}, limits);
  CHECK(low.learn(4, kPeer4, 68, 576, 1500, 0) == Learned::kLowered);
  CHECK(low.mtu_for(4, kPeer4, 1500, 0) == 68);
}

void old_routers_do_not_say_how_much() {
  struct Case {
    size_t packet, mtu;
  };
  const Case cases[] = {{65'535, 32'000}, {9000, 8166}, {8166, 4352},
                        {1500, 1492},     {1492, 1006}, {1006, 576}};
  for (const Case& test : cases) {
    PathMtuCache cache({1, 2});
    CHECK(cache.learn(4, kPeer4, 0, test.packet, 65'535, 0) == Learned::kLowered);
    CHECK(cache.mtu_for(4, kPeer4, 65'535, 0) == test.mtu);
  }
}

void it_is_bounded() {
  PathMtuCache cache({1, 2});
  for (uint32_t i = 0; i < 5000; ++i) {
    uint8_t address[4];
    wire::store32(address, i);
    CHECK(cache.learn(4, address, 1000, 1500, 1500, i) == Learned::kLowered);
    CHECK(cache.size() <= 1024);
  }
  uint8_t address[4];
  for (uint32_t i = 0; i < 5000; ++i) {
    wire::store32(address, i);
    CHECK(cache.mtu_for(4, address, 1500, 5000) == (i < 5000 - 1024 ? 1500u : 1000u));
  }
}

}  // namespace

int main() {
  what_is_told_is_remembered();
  nothing_raises_it_but_time();
  what_cannot_be_is_ignored();
  old_routers_do_not_say_how_much();
  it_is_bounded();
  return 0;
}
