// Super-packets split in software: every segment is a valid packet with the right header, together
// they carry all bytes; and partial checksums completed.
#include <algorithm>

#include "check.h"
#include "ip/segmentation.h"
#include "packet_builder.h"

namespace {

using namespace apo;
using namespace apo::test;

constexpr uint8_t kFin = 1, kPsh = 8, kAck = 16, kEce = 64, kCwr = 128;

Bytes counting(size_t length) {
  Bytes bytes(length);
  for (size_t i = 0; i < length; ++i) bytes[i] = static_cast<uint8_t>(i * 7 + i / 256);
  return bytes;
}

Bytes part(const Bytes& bytes, size_t from, size_t to) {
  return {bytes.begin() + static_cast<long>(from), bytes.begin() + static_cast<long>(to)};
}

Bytes wrap(bool six, uint8_t protocol, const Bytes& upper) {
  return six ? ipv6(protocol, upper) : ipv4(protocol, upper);
}

// A checksum field as a sender leaves it to be completed: the pseudo header's sum alone.
Bytes with_partial_checksum(Bytes upper, size_t field, bool six, uint8_t protocol) {
  wire::store16(&upper[field], 0);
  Bytes zeros(upper.size(), 0);
  wire::store16(&upper[field],
                static_cast<uint16_t>(~upper_checksum(six, six ? kPeer6 : kPeer4,
                                                      six ? kOwn6 : kOwn4, protocol, zeros)));
  return upper;
}

Bytes tcp_header(uint32_t sequence, uint8_t flags) {
  Bytes header(32, 1);  // twelve bytes of no-operations
  wire::store16(&header[0], 1000);
  wire::store16(&header[2], 2000);
  wire::store32(&header[4], sequence);
  wire::store32(&header[8], 99);
  header[12] = 0x80;
  header[13] = flags;
  wire::store32(&header[14], 0xffff0000);
  return header;
}

bool checksum_is_right(bool six, uint8_t protocol, const Bytes& packet, size_t ip) {
  return upper_checksum(six, six ? kPeer6 : kPeer4, six ? kOwn6 : kOwn4, protocol,
                        part(packet, ip, packet.size())) == 0;
}

std::vector<Bytes> segments_of(const Bytes& packet, GsoKind kind, uint16_t gso_bytes) {
  std::vector<Bytes> segments;
  auto segmenter = Segmenter::make(packet, {ChecksumState::kPartial, kind, gso_bytes});
  CHECK(segmenter.has_value());
  Bytes out(segmenter->longest_bytes());
  CHECK(segmenter->next({out.data(), 20}) == 0);
  while (const size_t length = segmenter->next(out)) {
    segments.emplace_back(out.begin(), out.begin() + static_cast<long>(length));
  }
  CHECK(segmenter->done() && segments.size() == segmenter->segments());
  return segments;
}

void tcp_segments_are_right() {
  constexpr uint32_t kStart = 0xfffffc00;  // around the end of the numbers
  for (const bool six : {false, true}) {
    const size_t ip = six ? 40 : 20;
    for (const size_t size : {size_t{0}, size_t{1}, size_t{1000}, size_t{1001}, size_t{60'000}}) {
      const Bytes data = counting(size);
      const uint8_t flags = kFin | kPsh | kAck | kEce | kCwr;
      const Bytes upper =
          with_partial_checksum(concat(tcp_header(kStart, flags), data), 16, six, 6);
      const Bytes packet = wrap(six, 6, upper);
      const auto segments = segments_of(packet, six ? GsoKind::kTcp6 : GsoKind::kTcp4, 1000);
      CHECK(segments.size() == std::max<size_t>(1, (size + 999) / 1000));
      Bytes together;
      for (size_t i = 0; i < segments.size(); ++i) {
        const Bytes& segment = segments[i];
        const bool first = i == 0, last = i + 1 == segments.size();
        CHECK(last || segment.size() == ip + 32 + 1000);
        if (six) {
          CHECK(wire::load16(&segment[4]) == segment.size() - 40);
        } else {
          CHECK(wire::load16(&segment[2]) == segment.size());
          CHECK(wire::load16(&segment[4]) == 0x1234 + i);
          CHECK(slow_checksum(part(segment, 0, 20)) == 0);
        }
        CHECK(part(segment, 6, six ? 40 : 10) == part(packet, 6, six ? 40 : 10));
        CHECK(checksum_is_right(six, 6, segment, ip));
        CHECK(wire::load32(&segment[ip + 4]) == kStart + static_cast<uint32_t>(together.size()));
        CHECK(segment[ip + 13] == (kAck | kEce | (first ? kCwr : 0) | (last ? kFin | kPsh : 0)));
        CHECK(part(segment, ip + 18, ip + 32) == part(packet, ip + 18, ip + 32));
        together = concat(together, part(segment, ip + 32, segment.size()));
      }
      CHECK(together == data);
    }
  }
}

void udp_segments_are_right() {
  for (const bool six : {false, true}) {
    const size_t ip = six ? 40 : 20;
    const Bytes data = counting(5001);
    Bytes upper(8);
    wire::store16(&upper[0], 1000);
    wire::store16(&upper[2], 2000);
    wire::store16(&upper[4], 5009);
    const Bytes packet = wrap(six, 17, with_partial_checksum(concat(upper, data), 6, six, 17));
    const auto segments = segments_of(packet, GsoKind::kUdp, 1200);
    CHECK(segments.size() == 5);
    Bytes together;
    for (size_t i = 0; i < segments.size(); ++i) {
      const Bytes& segment = segments[i];
      CHECK(wire::load16(&segment[ip + 4]) == segment.size() - ip);
      CHECK(wire::load16(&segment[ip]) == 1000 && wire::load16(&segment[ip + 2]) == 2000);
      CHECK(checksum_is_right(six, 17, segment, ip));
      if (!six) CHECK(wire::load16(&segment[4]) == 0x1234 + i);
      together = concat(together, part(segment, ip + 8, segment.size()));
    }
    CHECK(together == data);
  }
}

// A UDP checksum of 0 would say "none": data are sought for which it would come out so.
void udp_checksums_are_never_none() {
  for (const bool six : {false, true}) {
    const size_t ip = six ? 40 : 20;
    Bytes packet = udp(six, 1000, 2000, {0, 0, 7, 7});
    const uint16_t checksum = wire::load16(&packet[ip + 6]);
    wire::store16(&packet[ip + 8], checksum);  // now the sum of all is 0xffff
    const auto segments = segments_of(packet, GsoKind::kUdp, 100);
    CHECK(wire::load16(&segments[0][ip + 6]) == 0xffff);
    Bytes upper = part(packet, ip, packet.size());
    Bytes partial = wrap(six, 17, with_partial_checksum(upper, 6, six, 17));
    CHECK(complete_checksum(partial));
    CHECK(wire::load16(&partial[ip + 6]) == 0xffff);
  }
}

void what_cannot_be_split_is_refused() {
  const auto refused = [](const Bytes& packet, GsoKind kind, uint16_t gso_bytes = 100) {
    return !Segmenter::make(packet, {ChecksumState::kPartial, kind, gso_bytes});
  };
  const Bytes tcp4 = ipv4(6, concat(tcp_header(1, kAck), counting(3000)));
  const Bytes tcp6 = ipv6(6, concat(tcp_header(1, kAck), counting(3000)));
  CHECK(!refused(tcp4, GsoKind::kTcp4) && !refused(tcp6, GsoKind::kTcp6));
  CHECK(refused(tcp4, GsoKind::kTcp6) && refused(tcp6, GsoKind::kTcp4));
  CHECK(refused(tcp4, GsoKind::kUdp) && refused(tcp4, GsoKind::kNone));
  CHECK(refused(udp(false, 1, 2, counting(50)), GsoKind::kTcp4));
  CHECK(refused(tcp4, GsoKind::kTcp4, 0) && refused(tcp4, GsoKind::kTcp4, 1));
  CHECK(!refused(tcp4, GsoKind::kTcp4, 2));
  CHECK(refused({}, GsoKind::kTcp4) && refused(part(tcp4, 0, 100), GsoKind::kTcp4));
  CHECK(refused(ipv4(6, counting(19)), GsoKind::kTcp4));
  CHECK(refused(ipv4(17, counting(7)), GsoKind::kUdp));
  Bytes long_header = ipv4(6, tcp_header(1, kAck));
  long_header[20 + 12] = 0x90;
  CHECK(refused(long_header, GsoKind::kTcp4));
  Bytes fragment = tcp4;
  wire::store16(&fragment[6], 0x2000);
  CHECK(refused(fragment, GsoKind::kTcp4));
}

void partial_checksums_are_completed() {
  for (const bool six : {false, true}) {
    const size_t ip = six ? 40 : 20;
    struct Case {
      uint8_t protocol;
      size_t field;
      Bytes upper;
    };
    const Case cases[] = {
        {6, 16, concat(tcp_header(1, kAck), counting(1001))},
        {17, 6, concat({0, 1, 0, 2, 3, 0xf1, 0, 0}, counting(1001))},
        {uint8_t(six ? 58 : 1), 2, concat({8, 0, 0, 0, 0, 1, 0, 2}, counting(57))},
    };
    for (const Case& test : cases) {
      Bytes upper = with_partial_checksum(test.upper, test.field, six, test.protocol);
      if (test.protocol == 1) wire::store16(&upper[2], 0);  // ICMP has no pseudo header
      Bytes packet = wrap(six, test.protocol, upper);
      packet.resize(packet.size() + 5, 0xee);  // padding is not of the packet
      CHECK(complete_checksum(packet));
      packet.resize(packet.size() - 5);
      CHECK(checksum_is_right(six, test.protocol, packet, ip));
      const Bytes expected = with_checksum(test.upper, test.field, six, test.protocol);
      CHECK(part(packet, ip, packet.size()) == expected);
    }
    for (const uint8_t protocol : {6, 17, 58, 99}) {
      Bytes packet = wrap(six, protocol, counting(protocol == 99 ? 50 : 7));
      const Bytes before = packet;
      CHECK(!complete_checksum(packet) && packet == before);
    }
  }
}

}  // namespace

int main() {
  tcp_segments_are_right();
  udp_segments_are_right();
  udp_checksums_are_never_none();
  what_cannot_be_split_is_refused();
  partial_checksums_are_completed();
  return 0;
}
