// Checking received packets, building what is sent, and the checksum under both: against packets
// and sums made the slow way, and every way of being malformed counted under its own reason.
#include <random>

#include "check.h"
#include "ip/ip_input.h"
#include "ip/ip_output.h"
#include "packet_builder.h"
#include "wire/checksum.h"

namespace {

using namespace apo;
using namespace apo::test;

AddressSet own_addresses() {
  AddressSet own;
  CHECK(own.add({{IpAddress::from_bytes(4, kOwn4), 24}}));
  CHECK(own.add({{IpAddress::from_bytes(6, kOwn6), 64}}));
  return own;
}

const AddressSet kOwn = own_addresses();

LinkCounter drop_of(const Bytes& packet) {
  const InputPacket input = check_input(packet, kOwn);
  CHECK(input.kind == InputKind::kDropped);
  return input.drop_reason;
}

// A changed byte, with the IPv4 header's checksum made right again.
Bytes changed(Bytes packet, size_t at, uint8_t value) {
  packet[at] = value;
  if (packet[0] >> 4 == 4 && at != 10 && at != 11) {
    wire::store16(&packet[10], 0);
    const size_t header = std::min<size_t>(packet.size(), (packet[0] & 15) * 4);
    wire::store16(&packet[10], slow_checksum({packet.begin(), packet.begin() + header}));
  }
  return packet;
}

void checksums_equal_the_slow_ones() {
  std::mt19937 random(1);
  for (size_t length = 0; length <= 300; ++length) {
    for (size_t shift = 0; shift < 3; ++shift) {
      Bytes bytes(shift + length);
      for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random() % 3 == 0 ? 0xff : random());
      const Bytes tail(bytes.begin() + static_cast<long>(shift), bytes.end());
      CHECK(wire::checksum_finish(wire::checksum_add(0, bytes.data() + shift, length)) ==
            slow_checksum(tail));
      const size_t cut = length / 2 & ~size_t{1};
      const wire::Sum first = wire::checksum_add(0, tail.data(), cut);
      CHECK(wire::checksum_finish(wire::checksum_add(first, tail.data() + cut, length - cut)) ==
            slow_checksum(tail));
      if (length < 4) continue;
      const uint16_t before = slow_checksum(tail);
      Bytes after = tail;
      after[2] = static_cast<uint8_t>(random());
      after[3] = static_cast<uint8_t>(random());
      const uint16_t updated =
          wire::checksum_update16(before, wire::load16(&tail[2]), wire::load16(&after[2]));
      // The two zeros of one's complement are one number.
      CHECK(updated % 0xffff == slow_checksum(after) % 0xffff);
    }
  }
}

// The long way through vectors, with words that carry at every step.
void long_checksums_lose_no_carry() {
  std::mt19937 random(2);
  for (const size_t length : {size_t{1500}, size_t{9001}, size_t{65'535}, size_t{65'575}}) {
    Bytes ones(length, 0xff);
    CHECK(wire::checksum_finish(wire::checksum_add(0, ones.data(), length)) == slow_checksum(ones));
    for (uint8_t& byte : ones) byte = static_cast<uint8_t>(random() % 7 == 0 ? random() : 0xff);
    const uint16_t sum = slow_checksum(ones);
    CHECK(wire::checksum_finish(wire::checksum_add(0, ones.data(), length)) == sum);
    // A sum so far of 2^64 - 1 is one of 0xffff, which is 0.
    CHECK(wire::checksum_finish(wire::checksum_add(~uint64_t{0}, ones.data(), length)) == sum);
  }
}

void good_packets_are_taken() {
  for (const bool six : {false, true}) {
    const Bytes packet = udp(six, 1000, 2000, {1, 2, 3});
    const InputPacket input = check_input(packet, kOwn);
    CHECK(input.kind == InputKind::kUdp);
    CHECK(input.flow_source_port == 1000 && input.flow_destination_port == 2000);
    CHECK(input.upper_offset == (six ? 40u : 20u) && input.upper_length == 11);
    CHECK(input.checksum_state == ChecksumState::kVerified && input.hop_limit == 64);
    CHECK(input.flow_label == (six ? 0x12345u : 0u));
    Bytes padded = packet;
    padded.resize(packet.size() + 6, 0xee);  // as on a wire with a least length
    CHECK(check_input(padded, kOwn).length == packet.size());

    const Bytes echo = icmp(six, six ? 128 : 8, 0, 0x00070001, {9, 9});
    CHECK(check_input(echo, kOwn).kind == InputKind::kEchoRequest);
    const Bytes reply = icmp(six, six ? 129 : 0, 0, 0x00070001, {9, 9});
    CHECK(check_input(reply, kOwn).kind == InputKind::kEchoReply);
    CHECK(check_input(reply, kOwn).flow_source_port == 7);
  }
  Bytes unchecked = udp(false, 1, 2, {5});
  wire::store16(&unchecked[26], 0);
  CHECK(check_input(unchecked, kOwn).checksum_state == ChecksumState::kUnchecked);
}

void bad_ipv4_is_dropped_for_its_reason() {
  const Bytes good = udp(false, 1000, 2000, {1, 2, 3});
  CHECK(drop_of({}) == LinkCounter::kRxDroppedHeader);
  for (size_t length = 1; length < good.size(); ++length) {
    CHECK(drop_of({good.begin(), good.begin() + static_cast<long>(length)}) ==
          LinkCounter::kRxDroppedHeader);
  }
  CHECK(drop_of(changed(good, 0, 0x55)) == LinkCounter::kRxDroppedHeader);
  CHECK(drop_of(changed(good, 0, 0x44)) == LinkCounter::kRxDroppedHeader);
  CHECK(drop_of(changed(good, 3, 19)) == LinkCounter::kRxDroppedHeader);
  CHECK(drop_of(changed(good, 10, static_cast<uint8_t>(good[10] + 1))) ==
        LinkCounter::kRxDroppedHeaderChecksum);
  CHECK(drop_of(changed(good, 12, 127)) == LinkCounter::kRxDroppedSource);
  CHECK(drop_of(changed(good, 12, 224)) == LinkCounter::kRxDroppedSource);
  CHECK(drop_of(changed(good, 12, 0)) == LinkCounter::kRxDroppedSource);
  CHECK(drop_of(changed(good, 19, 9)) == LinkCounter::kRxDroppedNotOurs);
  CHECK(check_input(changed(good, 6, 0x20), kOwn).kind == InputKind::kFragment);
  CHECK(check_input(changed(good, 7, 1), kOwn).kind == InputKind::kFragment);
  CHECK(drop_of(changed(good, 9, 99)) == LinkCounter::kRxDroppedProtocol);
  Bytes options = good;
  options.insert(options.begin() + 20, {131, 7, 4, 0, 0, 0, 0, 0});  // a loose source route
  options[0] = 0x47;
  wire::store16(&options[2], static_cast<uint32_t>(options.size()));
  CHECK(drop_of(changed(options, 20, 131)) == LinkCounter::kRxDroppedOptions);
  CHECK(drop_of(changed(changed(options, 20, 7), 21, 9)) == LinkCounter::kRxDroppedOptions);
  CHECK(drop_of(changed(changed(options, 20, 7), 21, 1)) == LinkCounter::kRxDroppedOptions);
  CHECK(check_input(changed(options, 20, 7), kOwn).kind ==
        InputKind::kUdp);  // record route: skipped
}

void bad_ipv6_is_dropped_for_its_reason() {
  const Bytes good = udp(true, 1000, 2000, {1, 2, 3});
  for (size_t length = 1; length < good.size(); ++length) {
    CHECK(drop_of({good.begin(), good.begin() + static_cast<long>(length)}) ==
          LinkCounter::kRxDroppedHeader);
  }
  CHECK(drop_of(changed(good, 8, 0xff)) == LinkCounter::kRxDroppedSource);
  CHECK(drop_of(changed(changed(good, 8, 0), 23, 1)) == LinkCounter::kRxDroppedSource);
  CHECK(drop_of(changed(good, 39, 9)) == LinkCounter::kRxDroppedNotOurs);
  CHECK(drop_of(changed(good, 6, 59)) == LinkCounter::kRxDroppedProtocol);
  CHECK(drop_of(changed(good, 6, 43)) == LinkCounter::kRxDroppedExtension);
  const Bytes upper(good.begin() + 40, good.end());
  const auto extended = [&](const Bytes& headers) {
    return ipv6(headers[0], concat({headers.begin() + 1, headers.end()}, upper));
  };
  CHECK(check_input(extended({0, 17, 0, 1, 4, 0, 0, 0, 0}), kOwn).kind == InputKind::kUdp);
  CHECK(check_input(extended({44, 17, 0, 0, 0, 1, 2, 3, 4}), kOwn).kind ==
        InputKind::kUdp);  // atomic
  CHECK(check_input(extended({44, 17, 0, 0, 1, 1, 2, 3, 4}), kOwn).kind == InputKind::kFragment);
  CHECK(drop_of(extended({60, 17, 200, 1, 4, 0, 0, 0, 0})) == LinkCounter::kRxDroppedExtension);
  CHECK(drop_of(extended({43, 17, 0, 0, 0, 0, 0, 0, 0})) == LinkCounter::kRxDroppedExtension);
  // Hop-by-hop options stand first or nowhere.
  CHECK(drop_of(extended({60, 0, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0})) ==
        LinkCounter::kRxDroppedExtension);
  Bytes many = {60};
  for (int i = 0; i < 12; ++i) many.insert(many.end(), {60, 0, 1, 4, 0, 0, 0, 0});
  CHECK(drop_of(extended(many)) == LinkCounter::kRxDroppedExtension);
}

void bad_upper_layers_are_dropped_for_their_reason() {
  for (const bool six : {false, true}) {
    const size_t upper = six ? 40 : 20;
    const Bytes good = udp(six, 1000, 2000, {1, 2, 3});
    CHECK(drop_of(changed(good, upper + 5, 7)) == LinkCounter::kRxDroppedUdpLength);
    CHECK(drop_of(changed(good, upper + 5, 12)) == LinkCounter::kRxDroppedUdpLength);
    CHECK(drop_of(changed(good, upper + 8, 77)) == LinkCounter::kRxDroppedUdpChecksum);
    CHECK(drop_of(udp(six, 0, 5, {})) == LinkCounter::kRxDroppedUdpPort);
    CHECK(drop_of(udp(six, 5, 0, {})) == LinkCounter::kRxDroppedUdpPort);
    const Bytes echo = icmp(six, six ? 128 : 8, 0, 1, {9, 9});
    CHECK(drop_of(changed(echo, upper + 8, 1)) == LinkCounter::kRxDroppedIcmpChecksum);
    CHECK(drop_of(icmp(six, six ? 200 : 42, 0, 1, {})) == LinkCounter::kRxDroppedIcmpType);
    CHECK(drop_of(icmp(six, six ? 1 : 3, 3, 0, good)) ==
          LinkCounter::kRxDroppedIcmpQuote);  // not from us
    CHECK(drop_of(icmp(six, six ? 1 : 3, 3, 0, {0x45, 0, 0})) == LinkCounter::kRxDroppedIcmpQuote);
  }
  Bytes none = udp(true, 1, 2, {5});
  wire::store16(&none[46], 0);
  CHECK(drop_of(none) == LinkCounter::kRxDroppedUdpChecksum);
  CHECK(drop_of(ipv4(1, {8, 0, 0})) == LinkCounter::kRxDroppedIcmpLength);
}

// What `finish_output` makes of a frame full of 0xa5: every byte of the packet must have been
// written.
Bytes built(bool six, uint8_t protocol, const Bytes& upper, const uint8_t* from) {
  Bytes frame(2048, 0xa5);
  const size_t header = six ? 40 : 20;
  const size_t address = six ? 16 : 4;
  std::memcpy(&frame[64 + header - 2 * address], from, address);
  std::memcpy(&frame[64 + header - address], six ? kOwn6 : kOwn4, address);
  std::memcpy(&frame[64 + header], upper.data(), upper.size());
  PacketDescriptor descriptor;
  descriptor.packet_offset = 64;
  descriptor.upper_offset = static_cast<uint32_t>(64 + header);
  descriptor.length = static_cast<uint32_t>(header + upper.size());
  descriptor.protocol = protocol;
  descriptor.version = six ? 6 : 4;
  descriptor.label = 0x54321;
  AddressSet senders;
  CHECK(senders.add({{IpAddress::from_bytes(six ? 6 : 4, from), 24}}));
  const OutputPacket output = finish_output(descriptor, frame, senders);
  CHECK(output.ready);
  CHECK(frame[63] == 0xa5 && frame[64 + descriptor.length] == 0xa5);
  return {output.bytes.begin(), output.bytes.end()};
}

void what_is_built_is_right() {
  for (const bool six : {false, true}) {
    const uint8_t* peer = six ? kPeer6 : kPeer4;
    Bytes expected = udp(six, 1000, 2000, {1, 2, 3});
    Bytes upper(expected.begin() + (six ? 40 : 20), expected.end());
    if (six) wire::store32(&expected[0], 0x60054321);
    if (!six) expected = changed(changed(expected, 4, 0), 5, 0);  // identification 0
    CHECK(built(six, 17, upper, peer) == expected);
    const Bytes echo =
        built(six, six ? 58 : 1, {static_cast<uint8_t>(six ? 128 : 8), 0, 0, 0, 0, 1, 0, 2}, peer);
    CHECK(check_input(echo, kOwn).kind == InputKind::kEchoRequest);
  }
}

void lying_descriptors_are_refused() {
  Bytes frame(2048);
  std::memcpy(&frame[64 + 12], kOwn4, 4);
  PacketDescriptor good;
  good.packet_offset = 64;
  good.upper_offset = 84;
  good.length = 40;
  good.protocol = 17;
  CHECK(finish_output(good, frame, kOwn).ready);
  const auto refused = [&](auto change) {
    PacketDescriptor bad = good;
    change(bad);
    const OutputPacket output = finish_output(bad, frame, kOwn);
    CHECK(!output.ready);
    return output.drop_reason;
  };
  CHECK(refused([](auto& d) { d.version = 5; }) == LinkCounter::kTxDroppedDescriptor);
  CHECK(refused([](auto& d) { d.protocol = 6; }) == LinkCounter::kTxDroppedDescriptor);
  CHECK(refused([](auto& d) { d.upper_offset = 85; }) == LinkCounter::kTxDroppedDescriptor);
  CHECK(refused([](auto& d) { d.length = 27; }) == LinkCounter::kTxDroppedDescriptor);
  CHECK(refused([](auto& d) { d.length = 0xffffffff; }) == LinkCounter::kTxDroppedDescriptor);
  CHECK(refused([](auto& d) { d.length = 1985; }) == LinkCounter::kTxDroppedDescriptor);
  CHECK(refused([](auto& d) {
          d.packet_offset = 2048;
          d.upper_offset = 2068;
        }) == LinkCounter::kTxDroppedDescriptor);
  CHECK(refused([](auto& d) { d.gso_kind = GsoKind::kUdp; }) == LinkCounter::kTxDroppedDescriptor);
  CHECK(refused([](auto& d) {
          d.gso_kind = GsoKind::kTcp4;
          d.gso_bytes = 10;
        }) == LinkCounter::kTxDroppedDescriptor);
  CHECK(finish_output(good, {}, kOwn).drop_reason == LinkCounter::kTxDroppedDescriptor);
  frame[64 + 15] = 9;
  CHECK(refused([](auto&) {}) == LinkCounter::kTxDroppedSource);
}

void steering_is_equal_in_both_directions() {
  std::mt19937 random(2);
  uint32_t shards_seen = 0;
  for (int i = 0; i < 1000; ++i) {
    uint8_t a[16], b[16];
    for (int n = 0; n < 16; ++n) {
      a[n] = static_cast<uint8_t>(random());
      b[n] = i % 3 == 0 ? a[n] : static_cast<uint8_t>(random());
    }
    const auto x = static_cast<uint16_t>(random());
    const auto y = static_cast<uint16_t>(random());
    for (const size_t bytes : {size_t{4}, size_t{16}}) {
      const uint32_t there = steer_hash({1, 2}, a, b, bytes, x, y, 17);
      CHECK(there == steer_hash({1, 2}, b, a, bytes, y, x, 17));
      CHECK(there != steer_hash({1, 3}, a, b, bytes, x, y, 17));
      shards_seen |= 1u << shard_of(there);
    }
  }
  CHECK(shards_seen == 0xffff);
}

void descriptors_survive_their_encoding() {
  std::mt19937 random(3);
  for (int i = 0; i < 1000; ++i) {
    PacketDescriptor::Words words;
    for (uint32_t& word : words) word = static_cast<uint32_t>(random());
    words[3] &= 0x00ffffff;  // the rest is zero
    CHECK(PacketDescriptor::decode(words).encode() == words);
  }
}

}  // namespace

int main() {
  checksums_equal_the_slow_ones();
  long_checksums_lose_no_carry();
  good_packets_are_taken();
  bad_ipv4_is_dropped_for_its_reason();
  bad_ipv6_is_dropped_for_its_reason();
  bad_upper_layers_are_dropped_for_their_reason();
  what_is_built_is_right();
  lying_descriptors_are_refused();
  steering_is_equal_in_both_directions();
  descriptors_survive_their_encoding();
  return 0;
}
