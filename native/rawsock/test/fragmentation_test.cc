// Splitting packets: every piece is a valid packet within the MTU, the pieces put together by hand
// are the packet, and what cannot be split is refused.
#include <algorithm>
#include <set>

#include "check.h"
#include "ip/fragmentation.h"
#include "packet_builder.h"

namespace {

using namespace apo;
using namespace apo::test;

constexpr SteerKey kKey = {1, 2};

Bytes counting(size_t length) {
  Bytes bytes(length);
  for (size_t i = 0; i < length; ++i) bytes[i] = static_cast<uint8_t>(i * 7 + i / 256);
  return bytes;
}

std::vector<Bytes> pieces_of(const Bytes& packet, size_t mtu, uint32_t identification) {
  std::vector<Bytes> pieces;
  auto fragmenter = Fragmenter::make(packet, mtu, identification);
  CHECK(fragmenter.has_value());
  Bytes out(mtu, 0xee);
  CHECK(fragmenter->next({out.data(), 8}) == 0 && !fragmenter->done());
  while (const size_t length = fragmenter->next(out)) {
    CHECK(length <= mtu);
    pieces.emplace_back(out.begin(), out.begin() + static_cast<long>(length));
  }
  CHECK(fragmenter->done());
  return pieces;
}

Bytes part(const Bytes& bytes, size_t from, size_t to) {
  return {bytes.begin() + static_cast<long>(from), bytes.begin() + static_cast<long>(to)};
}

void ipv4_pieces_are_right() {
  const Bytes upper = counting(4001);
  for (const size_t mtu : {size_t{68}, size_t{576}, size_t{1500}, size_t{1501}, size_t{3999}}) {
    const Bytes packet = ipv4(17, upper);
    size_t expected_offset = 0;
    Bytes together;
    const auto pieces = pieces_of(packet, mtu, 0xabcd1234);
    for (const Bytes& piece : pieces) {
      CHECK(piece[0] == 0x45 && wire::load16(&piece[2]) == piece.size());
      CHECK(slow_checksum(part(piece, 0, 20)) == 0);
      CHECK(wire::load16(&piece[4]) == 0x1234);
      const uint16_t word = wire::load16(&piece[6]);
      CHECK((word & 0xc000) == 0 && (word & 0x1fff) * 8u == expected_offset);
      CHECK(((word & 0x2000) != 0) == (&piece != &pieces.back()));
      CHECK(part(piece, 8, 10) == part(packet, 8, 10));
      CHECK(part(piece, 12, 20) == part(packet, 12, 20));
      if (&piece != &pieces.back()) {
        CHECK(piece.size() % 8 == 4 && piece.size() + 8 > mtu);
      }
      expected_offset += piece.size() - 20;
      together = concat(together, part(piece, 20, piece.size()));
    }
    CHECK(together == upper);
  }
}

void ipv4_options_are_copied_when_they_say_so() {
  // Record route (not copied), no-operation, security (copied, 130, 11 bytes), end.
  const Bytes options = {7, 7, 4, 0, 0, 0, 0, 1, 130, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0};
  Bytes packet = ipv4(17, counting(200));
  packet.insert(packet.begin() + 20, options.begin(), options.end());
  packet[0] = 0x4a;
  wire::store16(&packet[2], static_cast<uint32_t>(packet.size()));
  const auto pieces = pieces_of(packet, 100, 9);
  CHECK(pieces.size() == 4);
  CHECK(pieces[0][0] == 0x4a && part(pieces[0], 20, 40) == options);
  for (size_t i = 1; i < pieces.size(); ++i) {
    CHECK(pieces[i][0] == 0x48);
    CHECK(part(pieces[i], 20, 32) == concat(part(options, 8, 19), {0}));
  }
  for (const Bytes& piece : pieces) {
    CHECK(slow_checksum(part(piece, 0, (piece[0] & 15) * 4u)) == 0);
  }
}

void a_piece_can_be_split_again() {
  const Bytes upper = counting(3000);
  Bytes together;
  for (const Bytes& piece : pieces_of(ipv4(17, upper), 1500, 5)) {
    for (const Bytes& small : pieces_of(piece, 576, 5)) {
      const uint16_t word = wire::load16(&small[6]);
      CHECK((word & 0x1fff) * 8u == together.size());
      together = concat(together, part(small, 20, small.size()));
      CHECK(((word & 0x2000) != 0) == (together.size() < upper.size()));
    }
  }
  CHECK(together == upper);
}

void ipv6_pieces_are_right() {
  const Bytes upper = counting(4003);
  const Bytes hop_by_hop = {60, 0, 1, 4, 0, 0, 0, 0};
  const Bytes destination_options = {17, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  struct Case {
    Bytes packet;
    size_t unfragmentable;
    uint8_t next_header;
  };
  const Case cases[] = {
      {ipv6(17, upper), 40, 17},
      {ipv6(0, concat(hop_by_hop, concat(destination_options, upper))), 48, 60},
      {ipv6(60, concat(destination_options, upper)), 40, 60},
  };
  for (const Case& test : cases) {
    const size_t split = test.unfragmentable;
    Bytes together;
    const auto pieces = pieces_of(test.packet, 1280, 0xabcd1234);
    for (const Bytes& piece : pieces) {
      CHECK(wire::load16(&piece[4]) == piece.size() - 40);
      CHECK(piece[split == 40 ? 6 : 40] == 44);
      CHECK(piece[split] == test.next_header && piece[split + 1] == 0);
      const uint16_t word = wire::load16(&piece[split + 2]);
      CHECK((word & 6) == 0 && (word & 0xfff8u) == together.size());
      CHECK(((word & 1) != 0) == (&piece != &pieces.back()));
      CHECK(wire::load32(&piece[split + 4]) == 0xabcd1234);
      together = concat(together, part(piece, split + 8, piece.size()));
    }
    CHECK(together == part(test.packet, split, test.packet.size()));
  }
}

void what_cannot_be_split_is_refused() {
  const Bytes four = ipv4(17, counting(2000));
  const Bytes six = ipv6(17, counting(2000));
  CHECK(!Fragmenter::make({}, 1500, 1));
  CHECK(!Fragmenter::make(part(four, 0, 19), 1500, 1));
  CHECK(!Fragmenter::make(part(six, 0, 39), 1500, 1));
  CHECK(!Fragmenter::make(four, 27, 1) && Fragmenter::make(four, 28, 1));
  CHECK(!Fragmenter::make(six, 55, 1) && Fragmenter::make(six, 56, 1));
  CHECK(!Fragmenter::make(ipv4(17, {}), 1500, 1));
  // One that is a fragment already, and extension headers that do not fit the first piece.
  CHECK(!Fragmenter::make(ipv6(44, concat({17, 0, 0, 1, 0, 0, 0, 1}, counting(2000))), 1500, 1));
  CHECK(!Fragmenter::make(ipv6(44, concat({17, 0, 0, 0, 0, 0, 0, 1}, counting(2000))), 1500, 1));
  Bytes options(160);
  options[0] = 17;
  options[1] = 19;
  const Bytes long_chain = ipv6(60, concat(options, counting(2000)));
  CHECK(!Fragmenter::make(long_chain, 215, 1) && Fragmenter::make(long_chain, 216, 1));
  // A last piece near the end of what offsets can say.
  Bytes far = ipv4(17, counting(2000));
  wire::store16(&far[6], 0x1fff);
  CHECK(!Fragmenter::make(far, 576, 1));
}

void identifications_do_not_come_again_soon() {
  IdentificationSource source(kKey), other({1, 3});
  std::set<uint32_t> seen;
  const uint32_t first = source.next(4, kOwn4, kPeer4);
  seen.insert(first & 0xffff);
  for (int i = 1; i < 65'536; ++i) seen.insert(source.next(4, kOwn4, kPeer4) & 0xffff);
  CHECK(seen.size() == 65'536);
  CHECK(source.next(6, kOwn6, kPeer6) + 1 == source.next(6, kOwn6, kPeer6));
  // Pairs, directions and keys start elsewhere.
  CHECK(source.next(4, kPeer4, kOwn4) != first + 65'536);
  CHECK(other.next(4, kOwn4, kPeer4) != first);
}

}  // namespace

int main() {
  ipv4_pieces_are_right();
  ipv4_options_are_copied_when_they_say_so();
  a_piece_can_be_split_again();
  ipv6_pieces_are_right();
  what_cannot_be_split_is_refused();
  identifications_do_not_come_again_soon();
  return 0;
}
