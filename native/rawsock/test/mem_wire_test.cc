// The `mem` wire without native threads: this program plays both ends. Inboxes that hold packets back,
// the switch's table, mirrors, and what a bad line does, held against `Impairment` itself; then senders,
// a receiver and a hand that changes the wire in threads of their own, for the thread sanitizer.
#include "links/mem_wire.h"

#include <algorithm>
#include <deque>
#include <map>
#include <thread>

#include "check.h"
#include "links/mem_mirror.h"
#include "packet_builder.h"
#include "shared_memory.h"
#include "util/clock.h"

namespace {

using namespace apo;
using namespace apo::test;

constexpr uint64_t kHour = 3'600'000'000;

// A datagram of UDP with both checksums right.
Bytes datagram(const uint8_t* from, const uint8_t* to, const Bytes& payload, bool six = false) {
  Bytes upper = {0x03, 0xe8, 0x07, 0xd0, 0, 0, 0, 0};  // ports 1000 and 2000
  upper = concat(upper, payload);
  wire::store16(&upper[4], static_cast<uint32_t>(upper.size()));
  wire::store16(&upper[6], upper_checksum(six, from, to, 17, upper));
  return six ? ipv6(17, upper, from, to) : ipv4(17, upper, from, to);
}

bool checksums_hold(const Bytes& packet) {
  const bool six = packet[0] >> 4 == 6;
  const size_t header = six ? 40 : 20;
  if (!six && slow_checksum({packet.begin(), packet.begin() + 20}) != 0) return false;
  const uint8_t* ends = packet.data() + (six ? 8 : 12);
  const Bytes upper(packet.begin() + static_cast<ptrdiff_t>(header), packet.end());
  return upper_checksum(six, ends, ends + (six ? 16 : 4), 17, upper) == 0;
}

AddressSet addresses_of(const uint8_t* four, const uint8_t* six = nullptr) {
  AddressSet own;
  CHECK(own.add({{IpAddress::from_bytes(4, four), 24}}));
  if (six != nullptr) CHECK(own.add({{IpAddress::from_bytes(6, six), 64}}));
  return own;
}

// What a runtime would have of a wire.
struct End {
  std::vector<uint32_t> pool_words = pool_memory(1, 128, 4);
  std::vector<uint64_t> cells = std::vector<uint64_t>(kLinkCounters);
  uint32_t bell = 0;
  FramePool pool = *FramePool::attach(pool_words, 0);
  std::shared_ptr<MemEndpoint> endpoint;

  End(const std::shared_ptr<MemWire>& wire, const AddressSet& own) {
    IpAddress taken;
    endpoint = wire->plug_in(own, &taken);
    CHECK(endpoint != nullptr);
    const LinkCounters counters(std::span<uint64_t, kLinkCounters>{cells});
    CHECK(endpoint->start({pool, counters, Doorbell(&bell)}) == 0);
  }
  ~End() {
    endpoint->close();
    (void)take();
    CHECK(pool.frames_in_use(0) == 0);
  }
  LinkCounter send(const Bytes& bytes, const Offload& offload = {}) {
    OutgoingPacket packet;
    packet.bytes = bytes;
    packet.offload = offload;
    endpoint->send({&packet, 1});
    return packet.result;
  }
  // Everything that is there now.
  std::vector<Bytes> take(std::vector<Offload>* offloads = nullptr) {
    std::vector<Bytes> all;
    std::array<IncomingPacket, Link::kBatch> packets;
    while (const size_t count = endpoint->receive(packets)) {
      for (size_t i = 0; i < count; ++i) {
        const uint8_t* bytes = pool.frame(packets[i].frame).data() + packets[i].offset;
        all.emplace_back(bytes, bytes + packets[i].length);
        if (offloads != nullptr) offloads->push_back(packets[i].offload);
        CHECK(pool.release(packets[i].frame));
      }
    }
    return all;
  }
  // Waits until `count` packets have come, by the link's own deadlines.
  std::vector<Bytes> wait_for(size_t count) {
    std::vector<Bytes> all = take();
    while (all.size() < count) {
      if (endpoint->prepare_sleep()) CHECK(endpoint->deadline_us() != Link::kNever);
      endpoint->finish_sleep();
      for (Bytes& packet : take()) all.push_back(std::move(packet));
    }
    return all;
  }
  [[nodiscard]] uint64_t counter(LinkCounter counter) const {
    return cells[static_cast<size_t>(counter)];
  }
};

struct Pair {
  std::shared_ptr<MemWire> wire;
  End a;
  End b;

  explicit Pair(const ImpairmentSettings& bad = {}, size_t mtu = 1500)
      : wire(MemWire::create({mtu, 256 * 1024, bad})),
        a(wire, addresses_of(kOwn4, kOwn6)),
        b(wire, addresses_of(kPeer4, kPeer6)) {}
};

// Against a model, through many turns of the ring: packets of every length, some due at once, some in
// an hour (in any order), taken in turns; nothing is overwritten before it is taken.
void inbox_keeps_what_is_held_back() {
  MemInbox inbox(4096);
  SeedMixer mixer(1);
  RandomStream random(mixer);
  struct Sent {
    uint8_t mark;
    size_t length;
  };
  std::deque<Sent> now;
  std::multimap<uint64_t, Sent> later;  // equal keys keep their order
  const auto expect = [](const MemInbox::Taken& taken, const Sent& sent) {
    CHECK(taken.bytes.size() == sent.length);
    CHECK(std::ranges::all_of(taken.bytes, [&](uint8_t byte) { return byte == sent.mark; }));
  };
  const uint64_t far = clock_us() + kHour;
  MemInbox::Taken taken;
  size_t refused = 0;
  size_t turns = 0;
  for (uint32_t round = 0; round < 60'000; ++round) {
    const Sent sent{static_cast<uint8_t>(round), 1 + random.below(600)};
    const uint32_t kind = random.below(8);
    const uint64_t due_us = kind == 0 ? far + random.below(10) : kind == 1 ? 1 : 0;
    if (inbox.push(Bytes(sent.length, sent.mark), {}, due_us) == nullptr) {
      ++refused;
    } else if (due_us >= far) {
      later.emplace(due_us, sent);
    } else {
      now.push_back(sent);
    }
    if (random.below(4) != 0) continue;
    (void)inbox.publish();
    while (inbox.take(taken, false)) {
      expect(taken, now.front());
      now.pop_front();
      if (random.below(16) == 0) break;
    }
    inbox.release();
    CHECK(later.empty() || inbox.due_us() == MemInbox::kNever || inbox.due_us() >= far);
    if (random.below(32) != 0) continue;
    // Everything is due at once: first what was held back, by time, then the rest in order.
    while (inbox.take(taken, false)) {
      expect(taken, now.front());
      now.pop_front();
    }
    inbox.release();
    CHECK(now.empty());
    while (inbox.take(taken, true)) {
      expect(taken, later.begin()->second);
      later.erase(later.begin());
    }
    inbox.release();
    CHECK(later.empty() && inbox.due_us() == MemInbox::kNever);
    ++turns;
  }
  CHECK(refused > 100 && turns > 100);
}

// However far it is, an empty inbox takes the longest packet.
void an_empty_inbox_takes_any_packet() {
  MemInbox inbox(MemWireOptions::kInboxBytesMin);
  SeedMixer mixer(2);
  RandomStream random(mixer);
  MemInbox::Taken taken;
  for (uint32_t i = 0; i < 3000; ++i) {
    const size_t length = i % 3 == 0 ? 65'535 : 1 + random.below(65'535);
    const Bytes packet(length, static_cast<uint8_t>(i));
    CHECK(inbox.push(packet, {}, 0) != nullptr);
    if (i % 5 == 0) CHECK(inbox.push(Bytes{static_cast<uint8_t>(i)}, {}, 0) != nullptr);
    (void)inbox.publish();
    CHECK(inbox.take(taken, false) && std::ranges::equal(taken.bytes, packet));
    CHECK(inbox.take(taken, false) == (i % 5 == 0));
    inbox.release();
  }
}

void copper_keeps_order_and_facts() {
  Pair pair;
  const Offload super{ChecksumState::kPartial, GsoKind::kUdp, 500};
  const Bytes small = datagram(kOwn4, kPeer4, {1, 2, 3});
  const Bytes large = datagram(kOwn6, kPeer6, Bytes(60'000), true);
  CHECK(pair.a.send(small) == LinkCounter::kTxPackets);
  CHECK(pair.a.send(large, super) == LinkCounter::kTxPackets);
  CHECK(pair.a.send(large) == LinkCounter::kTxDroppedTooBig);
  // Its segments would be too long: 40 + 8 + 1453.
  CHECK(pair.a.send(large, {ChecksumState::kPartial, GsoKind::kUdp, 1453}) ==
        LinkCounter::kTxDroppedTooBig);
  CHECK(pair.a.send(large, {ChecksumState::kPartial, GsoKind::kUdp, 1452}) ==
        LinkCounter::kTxPackets);
  std::vector<Offload> offloads;
  CHECK((pair.b.take(&offloads) == std::vector<Bytes>{small, large, large}));
  CHECK(offloads[1].gso_kind == GsoKind::kUdp && offloads[1].gso_bytes == 500);
  CHECK(offloads[1].checksum_state == ChecksumState::kPartial);
  CHECK(pair.b.endpoint->deadline_us() == Link::kNever);
  CHECK(pair.a.send({}) == LinkCounter::kTxDroppedNoRoute);
  CHECK(pair.a.send(Bytes(20, 0x99)) == LinkCounter::kTxDroppedNoRoute);
}

// The fates on the wire are those that Impairment decides for plugs 1 and 2.
void a_line_does_what_impairment_decides() {
  ImpairmentSettings bad;
  bad.seed_low = 77;
  bad.loss = ImpairmentSettings::kCertain / 4;
  bad.burst_enter = ImpairmentSettings::kCertain / 20;
  bad.burst_leave = ImpairmentSettings::kCertain / 3;
  bad.burst_loss_bad = ImpairmentSettings::kCertain;
  bad.duplicate = ImpairmentSettings::kCertain / 5;
  bad.corrupt = ImpairmentSettings::kCertain / 3;
  Pair pair(bad);
  Impairment model(bad, 1, 2);
  std::map<LinkCounter, uint64_t> expected;
  std::vector<Bytes> arrivals;
  std::vector<Bytes> got;
  for (int i = 0; i < 2000; ++i) {
    Bytes packet = datagram(kOwn4, kPeer4, {static_cast<uint8_t>(i)});
    const ImpairmentDecision way = model.decide(0, static_cast<uint32_t>(packet.size()));
    expected[LinkCounter::kWireLost] += way.fate == PacketFate::kLost;
    expected[LinkCounter::kWireLostInBurst] += way.fate == PacketFate::kLostInBurst;
    CHECK(pair.a.send(packet) == LinkCounter::kTxPackets);
    for (Bytes& arrived : pair.b.take()) got.push_back(std::move(arrived));
    if (way.fate != PacketFate::kDelivered) continue;
    if (way.corrupt_bit != ImpairmentDecision::kNoBit) {
      ++expected[LinkCounter::kWireCorrupted];
      packet[way.corrupt_bit / 8] ^= static_cast<uint8_t>(1 << way.corrupt_bit % 8);
    }
    arrivals.push_back(packet);
    if (way.copy_at_us == ImpairmentDecision::kNever) continue;
    ++expected[LinkCounter::kWireDuplicated];
    arrivals.push_back(packet);
  }
  CHECK(got == arrivals);
  CHECK(expected.size() == 4);
  for (const auto& [counter, count] : expected) {
    CHECK(count > 50 && pair.a.counter(counter) == count && pair.b.counter(counter) == 0);
  }
}

void delayed_packets_wait_and_are_never_early() {
  ImpairmentSettings bad;
  bad.delay_us = 3000;
  Pair pair(bad);
  const uint64_t sent_us = clock_us();
  for (uint8_t i = 0; i < 100; ++i) {
    CHECK(pair.a.send(datagram(kOwn4, kPeer4, {i})) == LinkCounter::kTxPackets);
  }
  CHECK(pair.b.endpoint->deadline_us() == Link::kNever);  // it has not looked yet
  const auto got = pair.b.wait_for(100);
  CHECK(clock_us() >= sent_us + 3000);
  for (uint8_t i = 0; i < 100; ++i) CHECK(got[i].back() == i);

  // Not due for a minute: it sleeps until then, and a packet that is injected passes all the others.
  bad.delay_us = 60'000'000;
  pair.wire->impair(bad);
  const uint64_t before_us = clock_us();
  CHECK(pair.a.send(datagram(kOwn4, kPeer4, {1})) == LinkCounter::kTxPackets);
  CHECK(pair.a.send(datagram(kOwn4, kPeer4, {2})) == LinkCounter::kTxPackets);
  CHECK(pair.b.take().empty());
  CHECK(pair.b.endpoint->deadline_us() >= before_us + 60'000'000);
  CHECK(pair.b.endpoint->prepare_sleep());
  const uint32_t bell = pair.b.bell;
  CHECK(pair.wire->inject(IpAddress::from_bytes(4, kPeer4), Bytes{9}) == LinkCounter::kTxPackets);
  CHECK(pair.b.bell == bell + 1);
  CHECK((pair.b.take() == std::vector<Bytes>{{9}}));
  // Unplugged, it has nothing to wait for.
  pair.b.endpoint->close();
  const auto rest = pair.b.take();
  CHECK(rest.size() == 2 && rest[0].back() == 1 && rest[1].back() == 2);
  CHECK(pair.a.send(datagram(kOwn4, kPeer4, {3})) == LinkCounter::kTxDroppedNoRoute);
}

void held_back_packets_are_overtaken() {
  ImpairmentSettings bad;
  bad.reorder = ImpairmentSettings::kCertain;
  bad.reorder_us = 60'000'000;
  Pair pair(bad);
  CHECK(pair.a.send(datagram(kOwn4, kPeer4, {1})) == LinkCounter::kTxPackets);
  pair.wire->impair({});
  CHECK(pair.a.send(datagram(kOwn4, kPeer4, {2})) == LinkCounter::kTxPackets);
  const auto first = pair.b.take();
  CHECK(first.size() == 1 && first[0].back() == 2);
  pair.b.endpoint->close();
  const auto second = pair.b.take();
  CHECK(second.size() == 1 && second[0].back() == 1);
  CHECK(pair.a.counter(LinkCounter::kWireReordered) == 1);
}

// None is due before all have been sent, and then they come by the times that Impairment decides.
void jitter_puts_packets_in_the_order_of_their_times() {
  ImpairmentSettings bad;
  bad.delay_us = 30'000'000;
  bad.jitter_us = 30'000'000;
  Pair pair(bad);
  Impairment model(bad, 1, 2);
  std::multimap<uint64_t, uint8_t> expected;
  for (uint8_t i = 0; i < 200; ++i) {
    const Bytes packet = datagram(kOwn4, kPeer4, {i});
    expected.emplace(model.decide(0, static_cast<uint32_t>(packet.size())).at_us, i);
    CHECK(pair.a.send(packet) == LinkCounter::kTxPackets);
    CHECK(pair.b.take().empty());
  }
  pair.b.endpoint->close();
  const auto got = pair.b.take();
  CHECK(got.size() == 200);
  // Microseconds go by between the packets that are sent: neighbours in time may have changed places.
  size_t in_place = 0;
  auto next = expected.begin();
  for (const Bytes& packet : got) in_place += packet.back() == (next++)->second;
  CHECK(in_place > 100);
}

void the_queue_and_the_inbox_are_bounded() {
  ImpairmentSettings bad;
  bad.rate_bits_per_second = 1000;
  bad.queue_bytes = 1280;
  Pair pair(bad);
  const Bytes packet = datagram(kOwn4, kPeer4, Bytes(472));  // 500 bytes
  for (int i = 0; i < 10; ++i) CHECK(pair.a.send(packet) == LinkCounter::kTxPackets);
  CHECK(pair.a.counter(LinkCounter::kWireQueueFull) == 8);

  bad.rate_bits_per_second = 0;
  bad.delay_us = 60'000'000;
  pair.wire->impair(bad);
  size_t taken = 0;
  while (pair.a.send(packet) == LinkCounter::kTxPackets) {
    ++taken;
    CHECK(pair.b.take().empty());
  }
  // 256 KiB of records of 528 bytes, less the two that were there.
  CHECK(taken >= 490 && taken <= 494);
  pair.wire->impair({});
  CHECK(pair.a.send(packet) == LinkCounter::kTxDroppedInboxFull);
}

// A bit is flipped in what has no checksum yet: the checksum is computed first, so that it tells.
void damage_shows_in_packets_with_partial_checksums() {
  ImpairmentSettings bad;
  bad.corrupt = ImpairmentSettings::kCertain;
  Pair pair(bad);
  Impairment model(bad, 1, 2);
  size_t seen = 0;
  for (int i = 0; i < 200; ++i) {
    const Bytes whole = datagram(kOwn4, kPeer4, Bytes(100, static_cast<uint8_t>(i)));
    Bytes partial = whole;
    const Bytes empty(8 + 100);
    wire::store16(&partial[26], 0);
    const Bytes upper(partial.begin() + 20, partial.end());
    // The pseudo header's sum alone: that of all, less that of the datagram.
    const uint32_t all = static_cast<uint16_t>(~upper_checksum(false, kOwn4, kPeer4, 17, upper));
    const uint32_t rest = static_cast<uint16_t>(~slow_checksum(upper));
    wire::store16(&partial[26], all >= rest ? all - rest : all + 0xffff - rest);
    const ImpairmentDecision way = model.decide(0, static_cast<uint32_t>(whole.size()));
    CHECK(pair.a.send(partial, {ChecksumState::kPartial, GsoKind::kNone, 0}) ==
          LinkCounter::kTxPackets);
    std::vector<Offload> offloads;
    auto got = pair.b.take(&offloads);
    CHECK(got.size() == 1 && offloads[0].checksum_state == ChecksumState::kUnchecked);
    CHECK(!checksums_hold(got[0]) || way.corrupt_bit / 8 < 20);
    got[0][way.corrupt_bit / 8] ^= static_cast<uint8_t>(1 << way.corrupt_bit % 8);
    CHECK(got[0] == whole);
    seen += way.corrupt_bit / 8 >= 20;
  }
  CHECK(seen > 100);
}

void prefixes_are_found_after_addresses() {
  const auto wire = MemWire::create({});
  const auto prefix = [](std::initializer_list<uint8_t> first, uint8_t bits, AddressSet own = {}) {
    IpAddress address;
    address.version = first.size() > 4 ? 6 : 4;
    std::ranges::copy(first, address.bytes.begin());
    CHECK(own.add({{address, bits}, true}));
    return own;
  };
  End exact(wire, addresses_of(kPeer4));
  End net8(wire, prefix({10, 9, 9, 9}, 8));
  End net23(wire, prefix({10, 0, 1, 0}, 23));
  End six(wire, prefix({0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 8, prefix({0}, 0)));
  const auto goes_to = [&](End& end, std::initializer_list<uint8_t> four) {
    const Bytes address(four);
    CHECK(exact.send(datagram(kPeer4, address.data(), {})) == LinkCounter::kTxPackets);
    CHECK(end.take().size() == 1);
  };
  goes_to(exact, {10, 0, 0, 2});
  goes_to(net23, {10, 0, 0, 3});
  goes_to(net23, {10, 0, 1, 255});
  goes_to(net8, {10, 0, 2, 0});
  goes_to(six, {11, 0, 0, 0});
  CHECK(exact.send(datagram(kPeer6, kOwn6, {}, true)) == LinkCounter::kTxPackets);
  CHECK(six.take().size() == 1);
  IpAddress taken;
  CHECK(wire->plug_in(prefix({10, 1, 1, 1}, 8), &taken) == nullptr && taken.bytes[1] == 1);
  CHECK(wire->endpoints() == 4);
  net23.endpoint->close();
  goes_to(net8, {10, 0, 0, 3});
  CHECK(wire->inject(IpAddress::from_bytes(6, kOwn6), Bytes{1}) == LinkCounter::kTxPackets);
  six.endpoint->close();
  CHECK(wire->inject(IpAddress::from_bytes(6, kOwn6), Bytes{1}) == LinkCounter::kTxDroppedNoRoute);
}

void a_mirror_sends_everything_back() {
  Pair pair;
  IpAddress taken;
  const uint8_t at4[4] = {10, 0, 0, 9};
  const uint8_t at6[16] = {0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9};
  CHECK(pair.wire->add_mirror(addresses_of(kOwn4), &taken) == 0);
  const uint32_t number = pair.wire->add_mirror(addresses_of(at4, at6), &taken);
  CHECK(number == 3 && pair.wire->endpoints() == 2);
  for (const bool six : {false, true}) {
    const Bytes sent = datagram(six ? kOwn6 : kOwn4, six ? at6 : at4, {1, 2, 3}, six);
    CHECK(pair.a.send(sent) == LinkCounter::kTxPackets);
    const auto got = pair.a.take();
    CHECK(got.size() == 1 && checksums_hold(got[0]));
    Bytes expected = datagram(six ? at6 : at4, six ? kOwn6 : kOwn4, {1, 2, 3}, six);
    const size_t upper = six ? 40 : 20;
    std::swap_ranges(&expected[upper], &expected[upper + 2], &expected[upper + 2]);
    CHECK(got[0] == expected);
  }
  // A later fragment has no ports: its first bytes stay.
  Bytes fragment = datagram(kOwn4, at4, {1});
  wire::store16(&fragment[6], 1);
  CHECK(pair.a.send(fragment) == LinkCounter::kTxPackets);
  const auto back = pair.a.take();
  CHECK(back.size() == 1 && std::equal(back[0].begin() + 20, back[0].end(), fragment.begin() + 20));
  CHECK(pair.a.send(datagram(kOwn4, at4, Bytes(1473))) == LinkCounter::kTxDroppedTooBig);

  // Never from mirror to mirror, nor to somebody who is not there.
  CHECK(pair.wire->inject(IpAddress::from_bytes(4, at4), datagram(at4, at4, {})) ==
        LinkCounter::kTxDroppedNoRoute);
  const uint8_t nobody[4] = {10, 7, 7, 7};
  CHECK(pair.wire->inject(IpAddress::from_bytes(4, at4), datagram(nobody, at4, {})) ==
        LinkCounter::kTxDroppedNoRoute);
  CHECK(pair.wire->inject(IpAddress::from_bytes(4, at4), datagram(kPeer4, at4, {})) ==
        LinkCounter::kTxPackets);
  CHECK(pair.b.take().size() == 1);

  pair.wire->unplug(number);
  pair.wire->unplug(number);
  CHECK(pair.a.send(datagram(kOwn4, at4, {})) == LinkCounter::kTxDroppedNoRoute);
  CHECK(pair.wire->endpoints() == 2);
}

// There and back are two lines: both delay, both lose, and what was sent is accounted for.
void a_mirror_has_a_line_there_and_one_back() {
  ImpairmentSettings bad;
  bad.delay_us = 1500;
  bad.loss = ImpairmentSettings::kCertain / 5;
  bad.duplicate = ImpairmentSettings::kCertain / 5;
  bad.corrupt = ImpairmentSettings::kCertain / 5;
  Pair pair(bad);
  IpAddress taken;
  const uint8_t at4[4] = {10, 0, 0, 9};
  CHECK(pair.wire->add_mirror(addresses_of(at4), &taken) != 0);
  const uint64_t sent_us = clock_us();
  constexpr uint64_t kCount = 300;
  for (uint64_t i = 0; i < kCount; ++i) {
    CHECK(pair.a.send(datagram(kOwn4, at4, {1})) == LinkCounter::kTxPackets);
  }
  const uint64_t lost = pair.a.counter(LinkCounter::kWireLost);
  const uint64_t copies = pair.a.counter(LinkCounter::kWireDuplicated);
  // 36 % of those that went, and of the copies.
  CHECK(lost > 80 && lost < 180 && copies > 60 && copies < 150);
  CHECK(pair.a.wait_for(kCount + copies - lost).size() == kCount + copies - lost);
  CHECK(clock_us() >= sent_us + 3000);
  CHECK(pair.a.counter(LinkCounter::kWireCorrupted) > 40);
}

void ends_are_swapped_within_bounds_only() {
  for (const Bytes& whole : {datagram(kOwn4, kPeer4, {1, 2}), datagram(kOwn6, kPeer6, {1}, true)}) {
    for (size_t length = 0; length <= whole.size(); ++length) {
      Bytes part(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(length));
      const Bytes before = part;
      swap_ends(part);
      CHECK((part == before) == (length < whole.size()));
      swap_ends(part);
      CHECK(part == before);
    }
  }
}

// Three senders, one of them at a mirror, a receiver, and a hand that changes the wire all the while.
void threads_share_a_wire() {
  Pair pair;
  const uint8_t other[4] = {10, 0, 0, 3};
  const uint8_t at4[4] = {10, 0, 0, 9};
  End third(pair.wire, addresses_of(other));
  IpAddress taken;
  CHECK(pair.wire->add_mirror(addresses_of(at4), &taken) != 0);
  constexpr uint64_t kTurns = 300;
  std::atomic<bool> changing{true};
  std::atomic<int> running{2};
  std::atomic<uint64_t> progress{0};
  uint64_t sent[2] = {};
  const auto work = [&](End& end, const uint8_t* from, uint64_t& counted) {
    const Bytes packet = datagram(from, kPeer4, {1});
    while (changing.load()) {
      counted += end.send(packet) == LinkCounter::kTxPackets;
      ++progress;
    }
    --running;
  };
  std::thread first([&] { work(pair.a, kOwn4, sent[0]); });
  std::thread second([&] { work(third, other, sent[1]); });
  std::thread hand([&] {
    ImpairmentSettings bad;
    for (uint64_t i = 0; i < kTurns; ++i) {
      bad.loss = i % 3 * (ImpairmentSettings::kCertain / 10);
      bad.delay_us = i % 2 * 300;
      bad.duplicate = i % 5 * (ImpairmentSettings::kCertain / 20);
      pair.wire->impair(bad);
      IpAddress ignored;
      const uint8_t passing[4] = {10, 0, 0, 77};
      const auto guest = pair.wire->plug_in(addresses_of(passing), &ignored);
      pair.wire->unplug(guest->number());
      // Each setting is met by some packets.
      for (const uint64_t seen = progress.load(); progress.load() < seen + 20;) {
        std::this_thread::yield();
      }
    }
    pair.wire->impair({});
    changing.store(false);
  });
  uint64_t got = 0;
  uint64_t mirrored = 0;
  const Bytes to_mirror = datagram(kPeer4, at4, {1});
  while (running.load() > 0) {
    mirrored += pair.b.send(to_mirror) == LinkCounter::kTxPackets;
    got += pair.b.take().size();
  }
  first.join();
  second.join();
  hand.join();
  const auto total = [&](LinkCounter counter) {
    return pair.a.counter(counter) + pair.b.counter(counter) + third.counter(counter);
  };
  const uint64_t expected = sent[0] + sent[1] + mirrored + total(LinkCounter::kWireDuplicated) -
                            total(LinkCounter::kWireLost);
  const uint64_t missing = total(LinkCounter::kRxDroppedPoolEmpty);
  CHECK(missing == 0);
  got += pair.b.wait_for(expected - got).size();
  CHECK(got == expected);
  CHECK(total(LinkCounter::kWireLost) > 0);
}

}  // namespace

int main() {
  inbox_keeps_what_is_held_back();
  an_empty_inbox_takes_any_packet();
  copper_keeps_order_and_facts();
  a_line_does_what_impairment_decides();
  delayed_packets_wait_and_are_never_early();
  held_back_packets_are_overtaken();
  jitter_puts_packets_in_the_order_of_their_times();
  the_queue_and_the_inbox_are_bounded();
  damage_shows_in_packets_with_partial_checksums();
  prefixes_are_found_after_addresses();
  a_mirror_sends_everything_back();
  a_mirror_has_a_line_there_and_one_back();
  ends_are_swapped_within_bounds_only();
  threads_share_a_wire();
  return 0;
}
