// What the native thread says of its own accord: replies, errors of every kind in both families,
// resets; what must never be answered; and the budget for all of it.
#include <set>

#include "check.h"
#include "ip/icmp_output.h"
#include "packet_builder.h"

namespace {

using namespace apo;
using namespace apo::test;

AddressSet addresses(const uint8_t* four, const uint8_t* six) {
  AddressSet set;
  CHECK(set.add({{IpAddress::from_bytes(4, four), 24}}));
  CHECK(set.add({{IpAddress::from_bytes(6, six), 64}}));
  return set;
}

const AddressSet kOwn = addresses(kOwn4, kOwn6);
const AddressSet kPeers = addresses(kPeer4, kPeer6);

Bytes part(const Bytes& bytes, size_t from, size_t to) {
  return {bytes.begin() + static_cast<long>(from), bytes.begin() + static_cast<long>(to)};
}

Bytes with_header_checksum(Bytes packet) {
  wire::store16(&packet[10], 0);
  wire::store16(&packet[10], slow_checksum(part(packet, 0, (packet[0] & 15) * 4u)));
  return packet;
}

Bytes error_about(const Bytes& offender, IcmpError error, const uint8_t* from = nullptr) {
  Bytes out(2000, 0xa5);
  out.resize(build_icmp_error(error, offender, out, from));
  return out;
}

bool is_answered(const Bytes& offender, IcmpErrorKind kind = IcmpErrorKind::kPortUnreachable) {
  return !error_about(offender, {kind, 0}).empty();
}

void echo_replies_are_right() {
  for (const bool six : {false, true}) {
    const Bytes request = icmp(six, six ? 128 : 8, 0, 0x00070003, {1, 2, 3, 4, 5});
    const InputPacket echo = check_input(request, kOwn);
    Bytes out(2000, 0xa5);
    const size_t length = build_echo_reply(echo, request, out);
    CHECK(length == request.size());
    out.resize(length);
    CHECK(check_input(out, kPeers).kind == InputKind::kEchoReply);
    CHECK(part(out, six ? 44 : 24, length) == part(request, six ? 44 : 24, length));
    CHECK(build_echo_reply(echo, request, {out.data(), 20}) == 0);

    Bytes same = request;
    const InputPacket again = check_input(same, kOwn);
    const auto reply = build_echo_reply_in_place(again, same);
    CHECK(Bytes(reply.begin(), reply.end()) == out);
  }
}

void echo_replies_in_place_leave_out_options() {
  Bytes four = icmp(false, 8, 0, 0x00070003, {1, 2, 3});
  const Bytes options = {7, 7, 4, 0, 0, 0, 0, 1};
  four.insert(four.begin() + 20, options.begin(), options.end());
  four[0] = 0x47;
  wire::store16(&four[2], static_cast<uint32_t>(four.size()));
  four = with_header_checksum(four);
  Bytes six = icmp(true, 128, 0, 0x00070003, {1, 2, 3});
  const Bytes hop_by_hop = {58, 0, 1, 4, 0, 0, 0, 0};
  six.insert(six.begin() + 40, hop_by_hop.begin(), hop_by_hop.end());
  six[6] = 0;
  wire::store16(&six[4], static_cast<uint32_t>(six.size() - 40));
  for (Bytes& request : {std::ref(four), std::ref(six)}) {
    const InputPacket echo = check_input(request, kOwn);
    CHECK(echo.kind == InputKind::kEchoRequest);
    Bytes out(2000);
    out.resize(build_echo_reply(echo, request, out));
    const auto reply = build_echo_reply_in_place(echo, request);
    CHECK(reply.data() == request.data() + 8 && reply.size() == request.size() - 8);
    CHECK(Bytes(reply.begin(), reply.end()) == out);
    CHECK(check_input(reply, kPeers).kind == InputKind::kEchoReply);
  }
}

struct ErrorCase {
  IcmpErrorKind kind;
  uint8_t type4, code4, type6, code6;
};
// RFC 792, 1191, 1812 5.2.7; RFC 4443 3, 7112 5.
constexpr ErrorCase kErrors[] = {
    {IcmpErrorKind::kNoRoute, 3, 0, 1, 0},
    {IcmpErrorKind::kHostUnreachable, 3, 1, 1, 3},
    {IcmpErrorKind::kProtocolUnreachable, 3, 2, 4, 1},
    {IcmpErrorKind::kPortUnreachable, 3, 3, 1, 4},
    {IcmpErrorKind::kProhibited, 3, 13, 1, 1},
    {IcmpErrorKind::kPacketTooBig, 3, 4, 2, 0},
    {IcmpErrorKind::kHopLimitExceeded, 11, 0, 3, 0},
    {IcmpErrorKind::kReassemblyTimeExceeded, 11, 1, 3, 1},
    {IcmpErrorKind::kBadHeaderField, 12, 0, 4, 0},
    {IcmpErrorKind::kBadOption, 12, 0, 4, 2},
    {IcmpErrorKind::kIncompleteHeaderChain, 12, 2, 4, 3},
};

void every_error_is_right() {
  for (const bool six : {false, true}) {
    const size_t ip = six ? 40 : 20;
    for (const size_t size : {size_t{0}, size_t{5}, size_t{1400}}) {
      const Bytes offender = udp(six, 1000, 2000, Bytes(size, 7));
      for (const ErrorCase& test : kErrors) {
        const Bytes error = error_about(offender, {test.kind, 1300});
        CHECK(error.size() == std::min<size_t>(six ? 1280 : 576, ip + 8 + offender.size()));
        const InputPacket input = check_input(error, kPeers);
        CHECK(input.kind == InputKind::kIcmpError);
        CHECK(error[ip] == (six ? test.type6 : test.type4));
        CHECK(error[ip + 1] == (six ? test.code6 : test.code4));
        uint32_t word = 0;
        if (six || test.kind == IcmpErrorKind::kPacketTooBig) word = 1300;
        if (!six && test.type4 == 12) word = (1300u & 0xff) << 24;
        CHECK(wire::load32(&error[ip + 4]) == word);
        CHECK(part(error, ip + 8, error.size()) == part(offender, 0, error.size() - ip - 8));
        // Seen from its sender the flow is the offender's own, and it is steered as its packets are.
        CHECK(input.flow_source_port == 1000 && input.flow_destination_port == 2000);
        CHECK(input.steer({5, 6}) == check_input(offender, kOwn).steer({5, 6}));
        Bytes padded = offender;
        padded.resize(offender.size() + 9, 0xee);
        CHECK(error_about(padded, {test.kind, 1300}) == error);
      }
    }
    Bytes out(2000);
    const Bytes offender = udp(six, 1, 2, Bytes(100, 7));
    CHECK(build_icmp_error({}, offender, {out.data(), six ? 87u : 55u}) == 0);
    CHECK(build_icmp_error({}, offender, {out.data(), six ? 88u : 56u}) > 0);
    CHECK(build_port_unreachable(check_input(offender, kOwn), offender, out) ==
          ip + 8 + offender.size());
  }
}

void nothing_is_said_about_errors() {
  CHECK(is_answered(icmp(false, 8, 0, 1, {1})) && is_answered(icmp(false, 0, 0, 1, {1})));
  for (const uint8_t type : {3, 4, 5, 11, 12}) CHECK(!is_answered(icmp(false, type, 0, 1, {1})));
  CHECK(is_answered(icmp(true, 128, 0, 1, {1})) && is_answered(icmp(true, 135, 0, 1, {1})));
  for (const uint8_t type : {1, 2, 3, 4, 99, 137}) CHECK(!is_answered(icmp(true, type, 0, 1, {1})));
  const Bytes error = icmp(true, 1, 4, 0, Bytes(40));
  const Bytes upper = part(error, 40, error.size());
  // Behind options, in a first fragment, and in a later one where the type is out of sight.
  CHECK(!is_answered(ipv6(0, concat({58, 0, 1, 4, 0, 0, 0, 0}, upper))));
  CHECK(!is_answered(ipv6(44, concat({58, 0, 0, 1, 0, 0, 0, 1}, upper))));
  CHECK(!is_answered(ipv6(44, concat({58, 0, 0, 9, 0, 0, 0, 1}, upper))));
  CHECK(is_answered(ipv6(44, concat({17, 0, 0, 9, 0, 0, 0, 1}, upper))));
  CHECK(!is_answered(ipv4(1, {})) && !is_answered(ipv6(58, {})));
}

void nothing_is_said_to_or_about_groups() {
  const uint8_t group4[4] = {224, 0, 0, 1}, broadcast4[4] = {255, 255, 255, 255};
  const uint8_t nobody4[4] = {}, loopback4[4] = {127, 0, 0, 1};
  const uint8_t group6[16] = {0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  const uint8_t nobody6[16] = {};
  const Bytes upper = {0, 1, 0, 2, 0, 8, 0, 0};
  for (const auto* address : {group4, broadcast4, nobody4, loopback4}) {
    CHECK(!is_answered(ipv4(17, upper, address)));
    CHECK(!is_answered(ipv4(17, upper, kPeer4, address)));
    CHECK(!is_answered(ipv4(17, upper, kPeer4, address), IcmpErrorKind::kPacketTooBig));
  }
  for (const auto* address : {group6, nobody6}) {
    CHECK(!is_answered(ipv6(17, upper, address)));
    CHECK(!is_answered(ipv6(17, upper, kPeer6, address)));
  }
  const Bytes to_group = ipv6(17, upper, kPeer6, group6);
  for (const auto kind : {IcmpErrorKind::kPacketTooBig, IcmpErrorKind::kBadOption}) {
    CHECK(!is_answered(to_group, kind));
    const Bytes error = error_about(to_group, {kind, 1280}, kOwn6);
    CHECK(check_input(error, kPeers).kind != InputKind::kDropped ||
          check_input(error, kPeers).drop_reason == LinkCounter::kRxDroppedIcmpQuote);
    CHECK(part(error, 8, 24) == Bytes(kOwn6, kOwn6 + 16));
  }
  CHECK(error_about(to_group, {IcmpErrorKind::kPortUnreachable, 0}, kOwn6).empty());
}

void nothing_is_said_about_later_fragments_and_rubbish() {
  Bytes fragment = ipv4(17, Bytes(16, 1));
  wire::store16(&fragment[6], 0x2000);
  CHECK(is_answered(fragment));
  wire::store16(&fragment[6], 0x2001);
  CHECK(!is_answered(fragment));
  CHECK(!is_answered({}));
  for (const bool six : {false, true}) {
    const Bytes packet = udp(six, 1, 2, {});
    for (size_t length = 0; length < packet.size(); ++length) {
      CHECK(!is_answered(part(packet, 0, length)));
    }
  }
}

Bytes tcp(bool six, uint32_t sequence, uint32_t acknowledgment, uint8_t flags,
          const Bytes& payload) {
  Bytes upper(20);
  wire::store16(&upper[0], 1000);
  wire::store16(&upper[2], 2000);
  wire::store32(&upper[4], sequence);
  wire::store32(&upper[8], acknowledgment);
  upper[12] = 0x50;
  upper[13] = flags;
  upper = with_checksum(concat(upper, payload), 16, six, 6);
  return six ? ipv6(6, upper) : ipv4(6, upper);
}

Bytes reset_for(const Bytes& segment) {
  InputPacket input;
  const bool six = segment[0] >> 4 == 6;
  input.version = six ? 6 : 4;
  input.length = static_cast<uint32_t>(segment.size());
  input.upper_offset = six ? 40 : 20;
  input.source = &segment[six ? 8 : 12];
  input.destination = &segment[six ? 24 : 16];
  Bytes out(200, 0xa5);
  CHECK(build_tcp_reset(input, segment, {out.data(), six ? 59u : 39u}) == 0);
  out.resize(build_tcp_reset(input, segment, out));
  return out;
}

void resets_are_right() {
  constexpr uint8_t kFin = 1, kSyn = 2, kRst = 4, kAck = 16;
  struct Case {
    uint8_t flags;
    size_t payload;
    uint8_t reset_flags;
    uint32_t sequence, acknowledgment;
  };
  const Case cases[] = {
      {kSyn, 0, kRst | kAck, 0, 0xfffffff1},
      {kSyn, 30, kRst | kAck, 0, 15},  // around the end of the numbers
      {kFin, 3, kRst | kAck, 0, 0xfffffff4},
      {0, 3, kRst | kAck, 0, 0xfffffff3},
      {kAck, 3, kRst, 77, 0},
      {kSyn | kAck, 0, kRst, 77, 0},
  };
  for (const bool six : {false, true}) {
    const size_t ip = six ? 40 : 20;
    for (const Case& test : cases) {
      const Bytes segment = tcp(six, 0xfffffff0, 77, test.flags, Bytes(test.payload, 5));
      const Bytes reset = reset_for(segment);
      CHECK(reset.size() == ip + 20);
      if (!six) CHECK(slow_checksum(part(reset, 0, 20)) == 0);
      CHECK(upper_checksum(six, six ? kOwn6 : kOwn4, six ? kPeer6 : kPeer4, 6,
                           part(reset, ip, ip + 20)) == 0);
      CHECK(wire::load16(&reset[ip]) == 2000 && wire::load16(&reset[ip + 2]) == 1000);
      CHECK(wire::load32(&reset[ip + 4]) == test.sequence);
      CHECK(wire::load32(&reset[ip + 8]) == test.acknowledgment);
      CHECK(reset[ip + 12] == 0x50 && reset[ip + 13] == test.reset_flags);
      CHECK(reset_for(reset).empty());
    }
    CHECK(reset_for(tcp(six, 1, 2, kRst | kAck, {})).empty());
    Bytes malformed = tcp(six, 1, 2, kSyn, {});
    malformed[ip + 12] = 0x60;
    CHECK(reset_for(malformed).empty());
    Bytes from_group = tcp(six, 1, 2, kSyn, {});
    from_group[six ? 8 : 12] = 0xff;
    CHECK(reset_for(from_group).empty());
  }
}

// How many errors an address gets at one moment.
uint32_t drain(ErrorBudget& budget, const uint8_t* address, uint64_t now_us, uint8_t version = 4) {
  uint32_t taken = 0;
  while (budget.take(version, address, now_us)) ++taken;
  return taken;
}

void each_destination_has_a_budget_of_its_own() {
  ErrorBudget budget({1, 2});
  std::set<uint32_t> bursts;
  constexpr uint64_t kStart = 1'000'000;
  for (uint8_t i = 0; i < 200; ++i) {
    const uint8_t address[4] = {10, 0, 0, i};
    const uint32_t burst = drain(budget, address, kStart);
    CHECK(burst >= ErrorBudget::kBurstMin && burst <= ErrorBudget::kBurstMax);
    bursts.insert(burst);
  }
  CHECK(bursts.size() > 10);  // nobody can count on one size
  const uint8_t address[4] = {10, 0, 0, 7};
  CHECK(!budget.take(4, address, kStart + ErrorBudget::kIntervalMinUs - 1));
  CHECK(budget.take(4, address, kStart + ErrorBudget::kIntervalMaxUs));
  // Over ten seconds: between 60 and 125 a second.
  uint32_t taken = 0;
  for (uint64_t at = 0; at < 10'000'000; at += 500) taken += budget.take(4, address, kStart + at);
  CHECK(taken >= 600 && taken <= 1300);
  const uint32_t six = drain(budget, kPeer6, kStart, 6);
  CHECK(six >= ErrorBudget::kBurstMin && six <= ErrorBudget::kBurstMax);
}

void a_budget_changes_its_size() {
  ErrorBudget budget({1, 2});
  std::set<uint32_t> bursts;
  for (uint64_t minute = 1; minute < 100; ++minute) {
    bursts.insert(drain(budget, kPeer4, minute * 60'000'000));
  }
  CHECK(bursts.size() > 10);
}

void what_one_destination_gets_says_nothing_of_others() {
  // The same observer, alone and beside a destination that takes all it can get.
  std::set<uint32_t> alone, beside;
  for (uint32_t key = 0; key < 200; ++key) {
    ErrorBudget one({key, 9}), other({key, 9});
    const uint8_t neighbour[4] = {10, 0, 0, 3};
    (void)drain(other, neighbour, 1000);
    alone.insert(drain(one, kPeer4, 1000));
    beside.insert(drain(other, kPeer4, 1000));
  }
  CHECK(*alone.begin() == ErrorBudget::kBurstMin && *beside.begin() == ErrorBudget::kBurstMin);
  CHECK(*alone.rbegin() == ErrorBudget::kBurstMax && *beside.rbegin() == ErrorBudget::kBurstMax);
}

void the_table_of_budgets_is_bounded() {
  ErrorBudget budget({1, 2});
  for (uint32_t i = 0; i < 100'000; ++i) {
    uint8_t address[4];
    wire::store32(address, 0x0a000000 + i);
    CHECK(budget.take(4, address, 1000));
  }
}

}  // namespace

int main() {
  echo_replies_are_right();
  echo_replies_in_place_leave_out_options();
  every_error_is_right();
  nothing_is_said_about_errors();
  nothing_is_said_to_or_about_groups();
  nothing_is_said_about_later_fragments_and_rubbish();
  resets_are_right();
  each_destination_has_a_budget_of_its_own();
  a_budget_changes_its_size();
  what_one_destination_gets_says_nothing_of_others();
  the_table_of_budgets_is_bounded();
  return 0;
}
