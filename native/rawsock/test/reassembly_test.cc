// Putting fragments together: in any order they give the datagram back; every rule that makes one
// or all of them go; every bound; and that no block of memory is lost on the way.
#include <algorithm>
#include <array>
#include <random>

#include "check.h"
#include "ip/fragmentation.h"
#include "ip/reassembly.h"
#include "packet_builder.h"

namespace {

using namespace apo;
using namespace apo::test;
using Outcome = Reassembler::Outcome;

constexpr uint64_t kSecondUs = 1'000'000;

// A Reassembler with counters of its own.
struct Bench {
  explicit Bench(const ReassemblyLimits& limits = {})
      : reassembler({1, 2}, LinkCounters(cells), limits) {}

  Reassembler::Result add(const Bytes& packet, uint64_t now_us = 0) {
    return reassembler.add(packet, now_us);
  }
  LinkCounter drop(const Bytes& packet, uint64_t now_us = 0) {
    const auto result = add(packet, now_us);
    CHECK(result.outcome == Outcome::kDropped);
    return result.reason;
  }
  void wait(const Bytes& packet, uint64_t now_us = 0) {
    CHECK(add(packet, now_us).outcome == Outcome::kWaiting);
  }
  uint64_t count(LinkCounter counter) const { return cells[static_cast<size_t>(counter)]; }
  bool is_empty() const {
    return reassembler.waiting_fragments() == 0 && reassembler.used_bytes() == 0;
  }

  std::array<uint64_t, kLinkCounters> cells{};
  Reassembler reassembler;
};

Bytes counting(size_t length) {
  Bytes bytes(length);
  for (size_t i = 0; i < length; ++i) bytes[i] = static_cast<uint8_t>(i * 7 + i / 256);
  return bytes;
}

Bytes with_header_checksum(Bytes packet) {
  const Bytes header(packet.begin(), packet.begin() + (packet[0] & 15) * 4);
  wire::store16(&packet[10], 0);
  Bytes zeroed = header;
  zeroed[10] = zeroed[11] = 0;
  wire::store16(&packet[10], slow_checksum(zeroed));
  return packet;
}

struct Piece {
  size_t offset = 0;
  Bytes data;
  bool more = true;
  uint32_t identification = 77;
  uint8_t ecn = 0;
  uint8_t protocol = 17;
  uint8_t sender = 2;
};

Bytes fragment4(const Piece& piece) {
  const uint8_t from[4] = {10, 0, 0, piece.sender};
  Bytes packet = ipv4(piece.protocol, piece.data, from);
  packet[1] = piece.ecn;
  wire::store16(&packet[4], piece.identification);
  wire::store16(&packet[6], static_cast<uint32_t>(piece.offset / 8) | (piece.more ? 0x2000 : 0));
  return with_header_checksum(packet);
}

Bytes fragment6(const Piece& piece) {
  uint8_t from[16] = {0xfd, 0, 0, 0, 0, 0, 0, piece.sender, 0, 0, 0, 0, 0, 0, 0, 2};
  Bytes header = {piece.protocol, 0, 0, 0, 0, 0, 0, 0};
  wire::store16(&header[2], static_cast<uint32_t>(piece.offset) | (piece.more ? 1 : 0));
  wire::store32(&header[4], piece.identification);
  Bytes packet = ipv6(44, concat(header, piece.data), from);
  packet[1] = static_cast<uint8_t>((packet[1] & 0x0f) | piece.ecn << 4);
  return packet;
}

Bytes fragment(bool six, const Piece& piece) { return six ? fragment6(piece) : fragment4(piece); }

std::vector<Bytes> pieces_of(const Bytes& packet, size_t mtu, uint32_t identification) {
  std::vector<Bytes> pieces;
  auto fragmenter = Fragmenter::make(packet, mtu, identification);
  Bytes out(mtu);
  while (const size_t length = fragmenter->next(out)) {
    pieces.emplace_back(out.begin(), out.begin() + static_cast<long>(length));
  }
  return pieces;
}

void any_order_gives_the_datagram() {
  std::mt19937 random(1);
  Bench bench;
  uint64_t merged = 0;
  uint64_t whole = 0;
  for (int round = 0; round < 400; ++round) {
    const bool six = round % 2 == 1;
    const size_t size = round % 40 == 0 ? 65'507 : 2000 + random() % 20'000;
    const Bytes packet = udp(six, 1000, 2000, counting(size - 8));
    auto pieces = pieces_of(packet, 1280, static_cast<uint32_t>(round));
    std::shuffle(pieces.begin(), pieces.end(), random);
    for (size_t i = 0; i + 1 < pieces.size(); ++i) bench.wait(pieces[i]);
    const auto result = bench.add(pieces.back());
    CHECK(result.outcome == Outcome::kComplete);
    Bytes expected = packet;
    if (!six) {  // the fragmenter chose an identification and cleared don't fragment
      wire::store16(&expected[4], static_cast<uint32_t>(round));
      wire::store16(&expected[6], 0);
      expected = with_header_checksum(expected);
    }
    CHECK(Bytes(result.datagram.begin(), result.datagram.end()) == expected);
    CHECK(bench.is_empty() && bench.reassembler.waiting_datagrams() == 0);
    merged += pieces.size() - 1;
    ++whole;
  }
  CHECK(bench.count(LinkCounter::kRxReassembled) == whole);
  CHECK(bench.count(LinkCounter::kRxMerged) == merged);
}

void many_at_once_do_not_mix() {
  std::mt19937 random(2);
  Bench bench;
  std::vector<std::pair<size_t, Bytes>> all;
  std::vector<Bytes> packets;
  for (uint32_t i = 0; i < 60; ++i) {
    const bool six = i % 2 == 1;
    packets.push_back(udp(six, static_cast<uint16_t>(i + 1), 2000, counting(3000 + i)));
    for (Bytes& piece : pieces_of(packets.back(), 1280, i)) all.emplace_back(i, std::move(piece));
  }
  std::shuffle(all.begin(), all.end(), random);
  size_t whole = 0;
  for (const auto& [i, piece] : all) {
    const auto result = bench.add(piece);
    CHECK(result.outcome == Outcome::kWaiting || result.outcome == Outcome::kComplete);
    if (result.outcome != Outcome::kComplete) continue;
    ++whole;
    const size_t ip = i % 2 == 1 ? 40 : 20;
    CHECK(std::equal(result.datagram.begin() + static_cast<long>(ip), result.datagram.end(),
                     packets[i].begin() + static_cast<long>(ip), packets[i].end()));
  }
  CHECK(whole == packets.size() && bench.is_empty());
}

void headers_come_from_the_first_fragment() {
  Bench bench;
  // IPv6: extension headers before and behind the fragment header, a next header that later ones lie
  // about.
  const Bytes hop_by_hop = {44, 0, 1, 4, 0, 0, 0, 0};
  const Bytes options = {17, 0, 1, 4, 0, 0, 0, 0};
  const Bytes upper = counting(24);
  const Bytes first =
      ipv6(0, concat(hop_by_hop, concat({60, 0, 0, 1, 0, 0, 0, 9}, concat(options, upper))));
  bench.wait(first);
  const auto six = bench.add(ipv6(44, concat({6, 0, 0, 32, 0, 0, 0, 9}, Bytes{1, 2, 3})));
  CHECK(six.outcome == Outcome::kComplete);
  const Bytes expected6 =
      ipv6(0, concat({60, 0, 1, 4, 0, 0, 0, 0}, concat(options, concat(upper, {1, 2, 3}))));
  CHECK(Bytes(six.datagram.begin(), six.datagram.end()) == expected6);
  // IPv4: the options of the first, though the second came before it.
  bench.wait(fragment4({.offset = 16, .data = {9, 9}, .more = false}));
  Bytes four = fragment4({.data = counting(16)});
  four.insert(four.begin() + 20, {1, 1, 1, 0});
  four[0] = 0x46;
  wire::store16(&four[2], static_cast<uint32_t>(four.size()));
  const auto whole = bench.add(with_header_checksum(four));
  CHECK(whole.outcome == Outcome::kComplete && whole.datagram.size() == 24 + 18);
  const Bytes got(whole.datagram.begin(), whole.datagram.end());
  CHECK(got[0] == 0x46 && got[20] == 1 && wire::load16(&got[2]) == 42 && got[40] == 9);
  CHECK(wire::load16(&got[6]) == 0 && with_header_checksum(got) == got);
}

void whole_packets_are_not_taken() {
  Bench bench;
  for (const Bytes& packet : {udp(false, 1, 2, {3}), udp(true, 1, 2, {3}), Bytes{}, Bytes{0x45, 0},
                              Bytes(40, 0x60), fragment6({.data = counting(16), .more = false})}) {
    CHECK(bench.add(packet).outcome == Outcome::kNotFragment);
  }
  CHECK(bench.is_empty());
}

void bad_lengths_are_dropped_alone() {
  for (const bool six : {false, true}) {
    Bench bench;
    bench.wait(fragment(six, {.data = counting(24)}));
    const auto result = bench.add(fragment(six, {.offset = 24, .data = counting(13)}));
    CHECK(result.reason == LinkCounter::kRxDroppedFragmentLength && result.has_error == six);
    if (six) {
      CHECK(result.error.kind == IcmpErrorKind::kBadHeaderField && result.error.value == 4);
    }
    CHECK(bench.drop(fragment(six, {.offset = 24})) == LinkCounter::kRxDroppedFragmentLength);
    const auto last = fragment(six, {.offset = 24, .data = counting(13), .more = false});
    CHECK(bench.add(last).outcome == Outcome::kComplete);
    CHECK(bench.count(LinkCounter::kRxDroppedFragmentLength) == 2 && bench.is_empty());
  }
}

void what_is_too_long_is_dropped() {
  for (const bool six : {false, true}) {
    Bench bench;
    const auto result =
        bench.add(fragment(six, {.offset = 65'528, .data = counting(8), .more = false}));
    CHECK(result.reason == LinkCounter::kRxDroppedFragmentTooLong && result.has_error == six);
    if (six) CHECK(result.error.value == 42);
    // By the least that is too long.
    CHECK(bench.drop(fragment(six, {.offset = six ? 65'528u : 65'512u, .data = counting(8)})) ==
          LinkCounter::kRxDroppedFragmentTooLong);
    CHECK(bench.reassembler.waiting_datagrams() == 0);
    // All within the bound, until a first fragment with longer headers shows that it was not.
    Piece piece;
    const size_t most = six ? 65'535 : 65'515;
    for (size_t at = 1200; at < most; at += 1200) {
      piece.offset = at;
      piece.data = counting(std::min<size_t>(1200, most - at));
      piece.more = at + piece.data.size() < most;
      bench.wait(fragment(six, piece));
    }
    Bytes first = fragment(six, {.data = counting(1200)});
    if (six) {
      const Bytes options = {44, 0, 1, 4, 0, 0, 0, 0};
      first.insert(first.begin() + 40, options.begin(), options.end());
      first[6] = 60;
      wire::store16(&first[4], static_cast<uint32_t>(first.size() - 40));
    } else {
      first.insert(first.begin() + 20, {1, 1, 1, 0});
      first[0] = 0x46;
      wire::store16(&first[2], static_cast<uint32_t>(first.size()));
      first = with_header_checksum(first);
    }
    const uint64_t waiting = bench.reassembler.waiting_fragments();
    CHECK(bench.drop(first) == LinkCounter::kRxDroppedFragmentTooLong);
    CHECK(bench.count(LinkCounter::kRxDroppedFragmentTooLong) == waiting + 3 && bench.is_empty());
  }
}

void the_longest_datagram_fits() {
  for (const bool six : {false, true}) {
    Bench bench;
    const size_t most = six ? 65'535 : 65'515;
    Reassembler::Result result;
    for (size_t at = 0; at < most; at += 1200) {
      const size_t length = std::min<size_t>(1200, most - at);
      result = bench.add(
          fragment(six, {.offset = at, .data = counting(length), .more = at + length < most}));
    }
    CHECK(result.outcome == Outcome::kComplete);
    CHECK(result.datagram.size() == (six ? 65'575u : 65'535u));
  }
}

void tiny_first_fragments_are_dropped() {
  Bench bench;
  CHECK(bench.drop(fragment4({.data = counting(8), .protocol = 6})) ==
        LinkCounter::kRxDroppedFragmentTiny);
  CHECK(bench.drop(fragment4({.offset = 8, .data = counting(8), .protocol = 6})) ==
        LinkCounter::kRxDroppedFragmentTiny);
  bench.wait(fragment4({.data = counting(16), .protocol = 6}));
  bench.wait(fragment4({.data = counting(8), .protocol = 17}));
  // IPv6: TCP's whole header, as long as it says it is; UDP's; extension headers.
  Bytes tcp = counting(32);
  tcp[12] = 0x60;
  tcp.resize(16);
  const auto result = bench.add(fragment6({.data = tcp, .protocol = 6}));
  CHECK(result.reason == LinkCounter::kRxDroppedFragmentTiny && result.has_error);
  CHECK(result.error.kind == IcmpErrorKind::kIncompleteHeaderChain);
  tcp.resize(24);
  bench.wait(fragment6({.data = tcp, .protocol = 6}));
  tcp[12] = 0x70;
  CHECK(bench.drop(fragment6({.data = tcp, .protocol = 6})) == LinkCounter::kRxDroppedFragmentTiny);
  const Bytes options = {17, 1, 1, 4, 0, 0, 0, 0};
  CHECK(bench.drop(fragment6({.data = options, .protocol = 60})) ==
        LinkCounter::kRxDroppedFragmentTiny);
  CHECK(bench.drop(fragment6({.data = concat(options, Bytes(8)), .protocol = 60})) ==
        LinkCounter::kRxDroppedFragmentTiny);
  bench.wait(fragment6({.data = concat(options, Bytes(16)), .identification = 1, .protocol = 60}));
}

void duplicates_are_dropped_alone() {
  for (const bool six : {false, true}) {
    Bench bench;
    const Bytes first = fragment(six, {.data = counting(1600)});
    bench.wait(first);
    CHECK(bench.drop(first) == LinkCounter::kRxDroppedFragmentDuplicate);
    const Bytes last = fragment(six, {.offset = 3200, .data = counting(700), .more = false});
    bench.wait(last);
    CHECK(bench.drop(last) == LinkCounter::kRxDroppedFragmentDuplicate);
    CHECK(bench.drop(first) == LinkCounter::kRxDroppedFragmentDuplicate);
    CHECK(bench.add(fragment(six, {.offset = 1600, .data = counting(1600)})).outcome ==
          Outcome::kComplete);
    // One byte differs, far inside: that is an overlap.
    bench.wait(first);
    Bytes other = first;
    other[other.size() - 500] ^= 1;
    if (!six) other = with_header_checksum(other);
    CHECK(bench.drop(other) == LinkCounter::kRxDroppedFragmentOverlap);
  }
}

void overlaps_make_the_datagram_void() {
  struct Case {
    size_t offset, length;
  };
  const Case overlapping[] = {{0, 80}, {40, 8}, {64, 80}, {72, 8}, {56, 120}, {160, 80}, {0, 8}};
  for (const bool six : {false, true}) {
    for (const Case& test : overlapping) {
      Bench bench;
      bench.wait(fragment(six, {.offset = 48, .data = counting(32)}));
      bench.wait(fragment(six, {.offset = 120, .data = counting(48)}));
      bench.wait(fragment(six, {.offset = 0, .data = counting(48)}));
      const Bytes bad = fragment(six, {.offset = test.offset, .data = Bytes(test.length, 0x55)});
      const auto result = bench.add(bad, 5);
      CHECK(result.reason == LinkCounter::kRxDroppedFragmentOverlap && !result.has_error);
      CHECK(bench.is_empty() && bench.count(LinkCounter::kRxDroppedFragmentOverlap) == 4);
      // Its fragments are refused until its time is over; then they may begin anew.
      CHECK(bench.drop(fragment(six, {.offset = 80, .data = counting(40)})) ==
            LinkCounter::kRxDroppedFragmentOverlap);
      std::span<const uint8_t> quoted;
      const uint64_t timeout_us = (six ? 60 : 30) * kSecondUs;
      CHECK(bench.reassembler.next_deadline_us() == timeout_us);
      CHECK(!bench.reassembler.expire(timeout_us - 1, quoted));
      CHECK(bench.reassembler.expire(timeout_us, quoted) && quoted.empty());
      CHECK(bench.count(LinkCounter::kRxDroppedFragmentTimeout) == 0);
      bench.wait(fragment(six, {.data = counting(80)}));
    }
  }
}

void contradictions_make_the_datagram_void() {
  const Piece first = {.data = counting(80)};
  const Piece last = {.offset = 160, .data = counting(24), .more = false};
  const Piece contradicting[] = {
      {.offset = 160, .data = counting(28), .more = false},  // two ends
      {.offset = 80, .data = counting(12), .more = false},
      {.offset = 160, .data = counting(24)},  // more to come behind the end
      {.offset = 176, .data = counting(8)},
      {.offset = 240, .data = counting(8)},
      {.offset = 80, .data = counting(80), .ecn = 3},  // congestion on what is not ECN-capable
  };
  for (const bool six : {false, true}) {
    for (const Piece& bad : contradicting) {
      Bench bench;
      bench.wait(fragment(six, first));
      bench.wait(fragment(six, last));
      CHECK(bench.drop(fragment(six, bad)) == LinkCounter::kRxDroppedFragmentMismatch);
      CHECK(bench.count(LinkCounter::kRxDroppedFragmentMismatch) == 3 && bench.is_empty());
    }
    Bench bench;  // an end before what is there already, or right at it
    bench.wait(fragment(six, {.offset = 160, .data = counting(80)}));
    CHECK(bench.drop(fragment(six, {.offset = 80, .data = counting(8), .more = false})) ==
          LinkCounter::kRxDroppedFragmentMismatch);
    bench.wait(fragment(six, {.offset = 160, .data = counting(80), .identification = 78}));
    CHECK(bench.drop(fragment(
              six, {.offset = 160, .data = counting(80), .more = false, .identification = 78})) ==
          LinkCounter::kRxDroppedFragmentMismatch);
  }
}

void congestion_survives() {
  for (const bool six : {false, true}) {
    for (const uint8_t seen : {uint8_t{1}, uint8_t{3}}) {
      Bench bench;
      bench.wait(fragment(six, {.data = counting(80), .ecn = 1}));
      const auto result =
          bench.add(fragment(six, {.offset = 80, .data = counting(8), .more = false, .ecn = seen}));
      CHECK(result.outcome == Outcome::kComplete);
      const uint8_t ecn = six ? result.datagram[1] >> 4 & 3 : result.datagram[1] & 3;
      CHECK(ecn == seen);
      const Bytes got(result.datagram.begin(), result.datagram.end());
      if (!six) CHECK(with_header_checksum(got) == got);
    }
  }
}

void too_many_fragments_make_the_datagram_void() {
  Bench bench;
  for (size_t i = 0; i < 128; ++i) bench.wait(fragment4({.offset = i * 16, .data = counting(8)}));
  CHECK(bench.drop(fragment4({.offset = 4096, .data = counting(8)})) ==
        LinkCounter::kRxDroppedFragmentTooMany);
  CHECK(bench.count(LinkCounter::kRxDroppedFragmentTooMany) == 129 && bench.is_empty());
}

void time_runs_out() {
  for (const bool six : {false, true}) {
    Bench bench;
    const uint64_t timeout_us = (six ? 60 : 30) * kSecondUs;
    const Bytes first = fragment(six, {.data = counting(1600)});
    CHECK(bench.reassembler.next_deadline_us() == UINT64_MAX);
    bench.wait(fragment(six, {.offset = 1600, .data = counting(800)}), 100);
    bench.wait(fragment(six, {.offset = 80, .data = counting(80), .identification = 2}), 200);
    bench.wait(first, 300);
    CHECK(bench.reassembler.next_deadline_us() == 100 + timeout_us);
    std::span<const uint8_t> quoted;
    CHECK(!bench.reassembler.expire(99 + timeout_us, quoted));
    CHECK(bench.reassembler.expire(250 + timeout_us, quoted));
    CHECK(Bytes(quoted.begin(), quoted.end()) == first);
    Bytes error(1500);
    const size_t length =
        build_icmp_error({IcmpErrorKind::kReassemblyTimeExceeded, 0}, quoted, error);
    CHECK(length == (six ? 1280u : 576u) && error[six ? 41 : 21] == 1);
    CHECK(bench.reassembler.expire(250 + timeout_us, quoted) && quoted.empty());
    CHECK(!bench.reassembler.expire(UINT64_MAX, quoted));
    CHECK(bench.count(LinkCounter::kRxDroppedFragmentTimeout) == 3 && bench.is_empty());
  }
}

void the_number_of_datagrams_is_bounded() {
  ReassemblyLimits limits;
  limits.datagrams = 8;
  limits.datagrams_per_source = 3;
  Bench bench(limits);
  // One sender has three at most: its own oldest makes room.
  for (uint32_t i = 0; i < 5; ++i) {
    bench.wait(fragment4({.data = counting(8), .identification = i}), i);
  }
  CHECK(bench.reassembler.waiting_datagrams() == 3);
  CHECK(bench.count(LinkCounter::kRxDroppedFragmentMemory) == 2);
  for (uint8_t sender = 10; sender < 15; ++sender) {
    bench.wait(fragment(sender % 2 == 0, {.data = counting(8), .sender = sender}), sender);
  }
  CHECK(bench.reassembler.waiting_datagrams() == 8);
  bench.wait(fragment6({.data = counting(8), .sender = 20}), 20);
  CHECK(bench.reassembler.waiting_datagrams() == 8);
  // The oldest of all was number 2 of the first sender; 3 and 4 are still there.
  const Piece end = {.offset = 8, .data = {1}, .more = false};
  Piece three = end, two = end;
  three.identification = 3;
  two.identification = 2;
  CHECK(bench.add(fragment4(three), 21).outcome == Outcome::kComplete);
  CHECK(bench.add(fragment4(two), 21).outcome == Outcome::kWaiting);
  bench.reassembler.clear();
  CHECK(bench.is_empty() && bench.count(LinkCounter::kRxDroppedClosing) == 8);
}

void senders_are_forgotten() {
  Bench bench;
  for (uint32_t i = 0; i < 2000; ++i) {
    Bytes first = fragment4({.data = counting(8)});
    Bytes last = fragment4({.offset = 8, .data = counting(3), .more = false});
    for (Bytes* packet : {&first, &last}) wire::store32(&(*packet)[12], 0x0a000000 + i);
    bench.wait(first);
    CHECK(bench.add(last).outcome == Outcome::kComplete);
  }
}

void memory_is_bounded() {
  ReassemblyLimits limits;
  limits.bytes = 16 * Reassembler::kBlockBytes;
  limits.bytes_per_source = 8 * Reassembler::kBlockBytes;
  Bench bench(limits);
  // Two blocks each; the fifth of one sender costs its first.
  for (uint32_t i = 0; i < 5; ++i) {
    bench.wait(fragment4({.offset = 8, .data = counting(1000), .identification = i}), i);
  }
  CHECK(bench.reassembler.used_bytes() == 8 * Reassembler::kBlockBytes);
  CHECK(bench.count(LinkCounter::kRxDroppedFragmentMemory) == 1);
  for (uint8_t sender = 10; sender < 14; ++sender) {
    bench.wait(fragment6({.offset = 8, .data = counting(1000), .sender = sender}), sender);
  }
  CHECK(bench.count(LinkCounter::kRxDroppedFragmentMemory) == 1);
  bench.wait(fragment6({.offset = 8, .data = counting(1000), .sender = 14}), 14);
  CHECK(bench.count(LinkCounter::kRxDroppedFragmentMemory) == 2);
  CHECK(bench.reassembler.used_bytes() == 16 * Reassembler::kBlockBytes);
  // A datagram that alone is more than a sender may have.
  Bench small(limits);
  small.wait(fragment4({.data = counting(4000)}));
  CHECK(small.drop(fragment4({.offset = 4000, .data = counting(8)})) ==
        LinkCounter::kRxDroppedFragmentMemory);
  CHECK(small.is_empty() && small.reassembler.waiting_datagrams() == 0);
  CHECK(small.count(LinkCounter::kRxDroppedFragmentMemory) == 2);
}

void a_flood_of_one_does_not_starve_another() {
  Bench bench;
  std::mt19937 random(3);
  const Bytes packet = udp(true, 1000, 2000, counting(30'000));
  const auto pieces = pieces_of(packet, 1280, 5);
  size_t at = 0;
  for (uint32_t i = 0; i < 100'000; ++i) {
    // One IPv6 /64 in all its addresses.
    Bytes flood = fragment6({.offset = 8 * (random() % 100),
                             .data = counting(8 * (1 + random() % 150)),
                             .identification = static_cast<uint32_t>(random() % 1000),
                             .sender = 9});
    flood[23] = static_cast<uint8_t>(random());
    (void)bench.add(flood, i);
    CHECK(bench.reassembler.used_bytes() <= (2 << 20));
    CHECK(bench.reassembler.waiting_datagrams() <= 65);
    if (i % 4000 == 0 && at < pieces.size()) {
      const auto result = bench.add(pieces[at++], i);
      CHECK(result.outcome == (at == pieces.size() ? Outcome::kComplete : Outcome::kWaiting));
    }
  }
  CHECK(at == pieces.size());
}

// Whatever comes, every fragment is counted once: dropped, merged, gone on, or waiting.
void every_fragment_is_counted_once() {
  std::mt19937 random(4);
  ReassemblyLimits limits;
  limits.datagrams = 16;
  limits.datagrams_per_source = 6;
  limits.bytes = 64 * Reassembler::kBlockBytes;
  limits.bytes_per_source = 24 * Reassembler::kBlockBytes;
  limits.fragments_per_datagram = 12;
  Bench bench(limits);
  uint64_t given = 0, now_us = 0;
  for (int i = 0; i < 200'000; ++i) {
    now_us += random() % 500 == 0 ? 70 * kSecondUs : random() % 100'000;
    const Piece piece = {.offset = 8 * (random() % 20),
                         .data = counting(random() % 9 == 0 ? random() % 50 : 8 * (random() % 8)),
                         .more = random() % 5 != 0,
                         .identification = static_cast<uint32_t>(random() % 12),
                         .ecn = static_cast<uint8_t>(random() % 50 == 0 ? 3 : 0),
                         .protocol = static_cast<uint8_t>(random() % 2 == 0 ? 6 : 17),
                         .sender = static_cast<uint8_t>(random() % 4)};
    const auto result = bench.add(fragment(random() % 2 == 0, piece), now_us);
    given += result.outcome != Outcome::kNotFragment;
    std::span<const uint8_t> quoted;
    while (bench.reassembler.expire(now_us, quoted)) {
    }
    uint64_t counted = bench.reassembler.waiting_fragments();
    for (size_t counter = 0; counter < kLinkCounters; ++counter) counted += bench.cells[counter];
    CHECK(counted ==
          given);  // rx.reassembled stands for the one fragment that rx.merged leaves out
  }
  for (const LinkCounter reason :
       {LinkCounter::kRxReassembled, LinkCounter::kRxDroppedFragmentLength,
        LinkCounter::kRxDroppedFragmentTiny, LinkCounter::kRxDroppedFragmentDuplicate,
        LinkCounter::kRxDroppedFragmentOverlap, LinkCounter::kRxDroppedFragmentMismatch,
        LinkCounter::kRxDroppedFragmentMemory, LinkCounter::kRxDroppedFragmentTimeout}) {
    CHECK(bench.count(reason) > 0);
  }
  bench.reassembler.clear();
  CHECK(bench.is_empty());
}

}  // namespace

int main() {
  any_order_gives_the_datagram();
  many_at_once_do_not_mix();
  headers_come_from_the_first_fragment();
  whole_packets_are_not_taken();
  bad_lengths_are_dropped_alone();
  what_is_too_long_is_dropped();
  the_longest_datagram_fits();
  tiny_first_fragments_are_dropped();
  duplicates_are_dropped_alone();
  overlaps_make_the_datagram_void();
  contradictions_make_the_datagram_void();
  congestion_survives();
  too_many_fragments_make_the_datagram_void();
  time_runs_out();
  the_number_of_datagrams_is_bounded();
  senders_are_forgotten();
  memory_is_bounded();
  a_flood_of_one_does_not_starve_another();
  every_fragment_is_counted_once();
  return 0;
}
