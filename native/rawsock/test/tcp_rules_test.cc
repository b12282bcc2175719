// The rules for TCP headers, over every combination of flags, every data offset and malformed
// options.
#include "guard/tcp_rules.h"

#include <algorithm>
#include <array>
#include <vector>

#include "check.h"

namespace {

using apo::check_tcp_flags;
using apo::check_tcp_header;
using apo::LinkCounter;
using apo::wire::TcpView;
using Segment = std::vector<uint8_t>;
using namespace apo::wire::tcp_flag;

Segment segment(uint8_t flags, size_t options = 0, size_t payload = 0) {
  Segment bytes(20 + options + payload);
  apo::wire::store16(&bytes[0], 40'000);
  apo::wire::store16(&bytes[2], 80);
  apo::wire::store32(&bytes[4], 0x01020304);
  apo::wire::store32(&bytes[8], 0x05060708);
  bytes[12] = static_cast<uint8_t>((20 + options) / 4 << 4);
  bytes[13] = flags;
  apo::wire::store16(&bytes[14], 0xfffe);
  apo::wire::store16(&bytes[16], 0xabcd);
  apo::wire::store16(&bytes[18], 7);
  return bytes;
}

LinkCounter verdict(const Segment& bytes) { return check_tcp_header(TcpView::parse(bytes)); }

void view_reads_the_fields() {
  Segment bytes = segment(kAck | kPsh, 8, 3);
  const auto tcp = TcpView::parse(bytes);
  CHECK(tcp && tcp->source_port() == 40'000 && tcp->destination_port() == 80);
  CHECK(tcp->sequence() == 0x01020304 && tcp->acknowledgment() == 0x05060708);
  CHECK(tcp->header_bytes() == 28 && tcp->flags() == (kAck | kPsh) && tcp->has(kPsh));
  CHECK(!tcp->has(kSyn) && tcp->window() == 0xfffe && tcp->checksum() == 0xabcd);
  CHECK(tcp->urgent_pointer() == 7 && tcp->options().size() == 8 && tcp->payload().size() == 3);
  CHECK(tcp->options().data() == &bytes[20] && tcp->payload().data() == &bytes[28]);
  CHECK(tcp->bytes().size() == 31);
}

void lengths_that_lie_are_refused() {
  for (size_t size = 0; size <= 80; ++size) {
    for (size_t offset = 0; offset < 16; ++offset) {
      Segment bytes = segment(kAck);
      bytes.resize(size);
      if (size > 12) bytes[12] = static_cast<uint8_t>(offset << 4);
      const bool fits = size >= 20 && offset >= 5 && offset * 4 <= size;
      const auto tcp = TcpView::parse(bytes);
      CHECK(tcp.has_value() == fits);
      CHECK((check_tcp_header(tcp) == LinkCounter::kRxDroppedTcpLength) == !fits);
    }
  }
}

// What RFC 9293 lets a peer send, written down the other way round.
bool is_in_good_faith(unsigned flags) {
  const bool fin = flags & kFin, syn = flags & kSyn, rst = flags & kRst, ack = flags & kAck;
  if (flags % 64 == 63) return false;
  if (syn) return !fin && !rst;
  if (rst) return !fin || ack;
  return ack;
}

void every_combination_of_flags() {
  std::array<int, 6> seen{};
  for (unsigned flags = 0; flags < 256; ++flags) {
    const LinkCounter found = verdict(segment(static_cast<uint8_t>(flags)));
    CHECK((found == LinkCounter::kRxPackets) == is_in_good_faith(flags));
    CHECK(found == check_tcp_flags(static_cast<uint8_t>(flags)));
    // ECN's flags change nothing.
    CHECK(found == check_tcp_flags(static_cast<uint8_t>(flags & 0x3f)));
    const LinkCounter reasons[] = {
        LinkCounter::kRxPackets,          LinkCounter::kRxDroppedTcpNull,
        LinkCounter::kRxDroppedTcpXmas,   LinkCounter::kRxDroppedTcpSynFin,
        LinkCounter::kRxDroppedTcpSynRst, LinkCounter::kRxDroppedTcpFin};
    for (size_t i = 0; i < seen.size(); ++i) seen[i] += found == reasons[i];
  }
  for (const int count : seen) CHECK(count > 0);
  CHECK(check_tcp_flags(0) == LinkCounter::kRxDroppedTcpNull);
  CHECK(check_tcp_flags(kPsh) == LinkCounter::kRxDroppedTcpNull);
  CHECK(check_tcp_flags(kFin | kPsh | kUrg) == LinkCounter::kRxDroppedTcpXmas);
  CHECK(check_tcp_flags(0xff) == LinkCounter::kRxDroppedTcpXmas);
  CHECK(check_tcp_flags(kSyn | kFin | kAck) == LinkCounter::kRxDroppedTcpSynFin);
  CHECK(check_tcp_flags(kSyn | kRst) == LinkCounter::kRxDroppedTcpSynRst);
  CHECK(check_tcp_flags(kFin) == LinkCounter::kRxDroppedTcpFin);
  CHECK(check_tcp_flags(kSyn | kEce | kCwr) == LinkCounter::kRxPackets);
  CHECK(check_tcp_flags(kAck | kFin | kPsh | kUrg) == LinkCounter::kRxPackets);
}

void ports_and_options() {
  Segment bytes = segment(kSyn);
  apo::wire::store16(&bytes[0], 0);
  CHECK(verdict(bytes) == LinkCounter::kRxDroppedTcpPort);
  bytes = segment(kSyn);
  apo::wire::store16(&bytes[2], 0);
  CHECK(verdict(bytes) == LinkCounter::kRxDroppedTcpPort);

  struct Case {
    Segment options;
    bool good;
  };
  const Case cases[] = {
      {{2, 4, 5, 180}, true}, {{1, 1, 1, 1}, true},
      {{0, 9, 9, 9}, true},   {{1, 1, 1, 2}, false},
      {{2, 0, 0, 0}, false},  {{2, 1, 0, 0}, false},
      {{1, 2, 4, 5}, false},  {{3, 3, 7, 0}, true},
      {{4, 2, 1, 3}, false},  {{4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}, true},
      {{254, 4, 0, 0}, true}, {{254, 5, 0, 0}, false},
  };
  for (const Case& one : cases) {
    bytes = segment(kSyn, one.options.size(), 5);
    std::copy(one.options.begin(), one.options.end(), bytes.begin() + 20);
    CHECK(verdict(bytes) ==
          (one.good ? LinkCounter::kRxPackets : LinkCounter::kRxDroppedTcpOptions));
  }
}

}  // namespace

int main() {
  view_reads_the_fields();
  lengths_that_lie_are_refused();
  every_combination_of_flags();
  ports_and_options();
}
