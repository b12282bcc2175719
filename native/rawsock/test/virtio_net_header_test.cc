// virtio_net_hdr both ways: golden bytes, and every lie that must be found.
#include "wire/virtio_net_header.h"

#include <algorithm>
#include <array>

#include "check.h"
#include "packet_builder.h"

namespace {

using namespace apo;
using namespace apo::test;
using wire::read_virtio_header;
using wire::write_virtio_header;

Bytes tcp(bool six, size_t payload, uint8_t flags = 0x18, uint8_t header_words = 5) {
  Bytes upper(static_cast<size_t>(header_words) * 4 + payload);
  wire::store16(&upper[0], 1234);
  wire::store16(&upper[2], 80);
  upper[12] = static_cast<uint8_t>(header_words << 4);
  upper[13] = flags;
  upper = with_checksum(upper, 16, six, 6);
  return six ? ipv6(6, upper) : ipv4(6, upper);
}

Bytes udp_of(bool six, size_t payload) { return udp(six, 1000, 2000, Bytes(payload, 7)); }

bool is(const std::optional<Offload>& offload, ChecksumState state, GsoKind kind = GsoKind::kNone,
        uint16_t gso_bytes = 0) {
  return offload && offload->checksum_state == state && offload->gso_kind == kind &&
         offload->gso_bytes == gso_bytes;
}

constexpr auto kPartial = ChecksumState::kPartial;

// Writes into poisoned bytes, so that none is left as it was by chance.
void golden(const Bytes& packet, const Offload& offload, const Bytes& expected) {
  for (const uint8_t poison : {0x00, 0xff, 0xa5}) {
    Bytes header(expected.size(), poison);
    CHECK(write_virtio_header(header, packet, offload));
    CHECK(header == expected);
  }
  CHECK(is(read_virtio_header(expected, packet), offload.checksum_state, offload.gso_kind,
           offload.gso_bytes));
}

void golden_bytes() {
  golden(udp_of(false, 3), {}, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
  golden(udp_of(false, 3), {}, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0});
  golden(udp_of(false, 3), {kPartial}, {1, 0, 28, 0, 0, 0, 20, 0, 6, 0});
  golden(udp_of(true, 3), {kPartial}, {1, 0, 48, 0, 0, 0, 40, 0, 6, 0, 1, 0});
  golden(tcp(false, 100), {kPartial}, {1, 0, 40, 0, 0, 0, 20, 0, 16, 0});
  golden(tcp(false, 3000), {kPartial, GsoKind::kTcp4, 1460},
         {1, 1, 40, 0, 0xb4, 0x05, 20, 0, 16, 0});
  golden(tcp(true, 3000, 0x10, 8), {kPartial, GsoKind::kTcp6, 1428},
         {1, 4, 72, 0, 0x94, 0x05, 40, 0, 16, 0});
  golden(tcp(false, 3000, 0x90), {kPartial, GsoKind::kTcp4, 1460},
         {1, 0x81, 40, 0, 0xb4, 0x05, 20, 0, 16, 0});
  golden(udp_of(false, 1000), {kPartial, GsoKind::kUdp, 100},
         {1, 5, 28, 0, 100, 0, 20, 0, 6, 0, 1, 0});
  golden(udp_of(true, 1000), {kPartial, GsoKind::kUdp, 100}, {1, 5, 48, 0, 100, 0, 40, 0, 6, 0});
}

void writing_refused() {
  std::array<uint8_t, 10> header{};
  std::array<uint8_t, 9> short_header{};
  CHECK(!write_virtio_header(short_header, udp_of(false, 3), {}));
  CHECK(!write_virtio_header(header, icmp(false, 8, 0, 0, {}), {kPartial}));
  CHECK(!write_virtio_header(header, Bytes{0x45, 0, 0}, {kPartial}));
  CHECK(!write_virtio_header(header, {}, {kPartial}));
  // A super-packet's checksum is partial; its kind is that of its packet.
  CHECK(!write_virtio_header(header, tcp(false, 3000),
                             {ChecksumState::kVerified, GsoKind::kTcp4, 1460}));
  CHECK(!write_virtio_header(header, tcp(false, 3000), {kPartial, GsoKind::kTcp6, 1460}));
  CHECK(!write_virtio_header(header, tcp(true, 3000), {kPartial, GsoKind::kTcp4, 1460}));
  CHECK(!write_virtio_header(header, tcp(false, 3000), {kPartial, GsoKind::kUdp, 1460}));
  CHECK(!write_virtio_header(header, tcp(false, 3000), {kPartial, GsoKind::kTcp4, 0}));
  CHECK(!write_virtio_header(header, tcp(false, 3000), {kPartial, GsoKind::kTcp4, 0xffff}));
  CHECK(!write_virtio_header(header, udp_of(false, 129), {kPartial, GsoKind::kUdp, 1}));
  // One segment is no super-packet.
  CHECK(write_virtio_header(header, tcp(false, 1460), {kPartial, GsoKind::kTcp4, 1460}));
  CHECK(header[1] == 0 && header[4] == 0 && header[5] == 0);
}

void reading() {
  const Bytes four = udp_of(false, 300);
  CHECK(
      is(read_virtio_header(Bytes{2, 0, 0, 0, 0, 0, 0, 0, 0, 0}, four), ChecksumState::kVerified));
  // Both: what has not been summed has not been verified.
  CHECK(is(read_virtio_header(Bytes{3, 0, 0, 0, 0, 0, 20, 0, 6, 0}, four), kPartial));
  // Nobody vouches for ICMP's sum.
  CHECK(is(read_virtio_header(Bytes{2, 0, 0, 0, 0, 0, 0, 0, 0, 0}, icmp(false, 8, 0, 1, {})),
           ChecksumState::kUnchecked));
  // Without flags, the rest means nothing; flags of features that were not agreed on neither.
  CHECK(is(read_virtio_header(Bytes{0, 0, 255, 255, 9, 9, 9, 9, 9, 9}, four),
           ChecksumState::kUnchecked));
  CHECK(is(read_virtio_header(Bytes{0xfc, 0, 0, 0, 0, 0, 0, 0, 0, 0}, four),
           ChecksumState::kUnchecked));
  // One segment or less.
  CHECK(is(read_virtio_header(Bytes{1, 5, 28, 0, 0x2c, 1, 20, 0, 6, 0}, four), kPartial));
  CHECK(is(read_virtio_header(Bytes{1, 5, 28, 0, 0x2b, 1, 20, 0, 6, 0}, four), kPartial,
           GsoKind::kUdp, 299));
  // Options and extension headers move the upper layer.
  Bytes options = four;
  options[0] = 0x46;
  options.insert(options.begin() + 20, {1, 1, 1, 1});
  wire::store16(&options[2], static_cast<uint32_t>(options.size()));
  CHECK(is(read_virtio_header(Bytes{1, 0, 0, 0, 0, 0, 24, 0, 6, 0}, options), kPartial));
  CHECK(!read_virtio_header(Bytes{1, 0, 0, 0, 0, 0, 20, 0, 6, 0}, options));
  const Bytes six = udp_of(true, 300);
  Bytes upper(six.begin() + 40, six.end());
  const Bytes extended = ipv6(60, concat({17, 0, 1, 4, 0, 0, 0, 0}, upper));
  CHECK(is(read_virtio_header(Bytes{1, 5, 0, 0, 100, 0, 48, 0, 6, 0}, extended), kPartial,
           GsoKind::kUdp, 100));
}

void lies() {
  const Bytes four = udp_of(false, 300);
  const Bytes long_tcp = tcp(false, 3000);
  const auto refused = [](const Bytes& packet, const Bytes& header) {
    CHECK(!read_virtio_header(header, packet));
  };
  refused(four, {1, 0, 0, 0, 0, 0, 20, 0, 6});                 // too short a header
  refused(four, {1, 0, 0, 0, 0, 0, 20, 0, 6, 0, 2, 0});        // in two buffers
  refused(four, {1, 0, 0x49, 1, 0, 0, 20, 0, 6, 0});           // headers of 329 of 328 bytes
  refused(four, {1, 0, 0, 0, 0, 0, 19, 0, 6, 0});              // not the UDP header
  refused(four, {1, 0, 0, 0, 0, 0, 0xff, 0xff, 6, 0});         // outside
  refused(four, {1, 0, 0, 0, 0, 0, 20, 0, 16, 0});             // not UDP's checksum
  refused(four, {1, 0, 0, 0, 0, 0, 20, 0, 0xff, 0xff});        // outside
  refused(long_tcp, {1, 0, 0, 0, 0, 0, 20, 0, 6, 0});          // not TCP's checksum
  refused(long_tcp, {0, 1, 40, 0, 0xb4, 5, 20, 0, 16, 0});     // GSO without a partial checksum
  refused(long_tcp, {2, 1, 40, 0, 0xb4, 5, 20, 0, 16, 0});     // likewise
  refused(long_tcp, {1, 1, 40, 0, 0, 0, 20, 0, 16, 0});        // segments of 0 bytes
  refused(long_tcp, {1, 1, 40, 0, 0xff, 0xff, 20, 0, 16, 0});  // the kernel's GSO_BY_FRAGS
  refused(long_tcp, {1, 2, 40, 0, 0xb4, 5, 20, 0, 16, 0});     // no such type
  refused(long_tcp, {1, 0x80, 40, 0, 0xb4, 5, 20, 0, 16, 0});  // ECN of nothing
  refused(long_tcp, {1, 4, 40, 0, 0xb4, 5, 20, 0, 16, 0});     // TCP over IPv6 in IPv4
  refused(long_tcp, {1, 5, 40, 0, 0xb4, 5, 20, 0, 16, 0});     // UDP that is TCP
  refused(four, {1, 3, 28, 0, 100, 0, 20, 0, 6, 0});           // UFO
  refused(four, {1, 0x85, 28, 0, 100, 0, 20, 0, 6, 0});        // ECN of UDP
  refused(four, {1, 1, 28, 0, 100, 0, 20, 0, 6, 0});           // TCP that is UDP
  refused(four, {1, 5, 28, 0, 2, 0, 20, 0, 6, 0});             // 150 segments

  Bytes fragment = four;
  wire::store16(&fragment[6], wire::Ipv4View::kMoreFragments);
  refused(fragment, {1, 0, 0, 0, 0, 0, 20, 0, 6, 0});
  CHECK(is(read_virtio_header(Bytes{2, 0, 0, 0, 0, 0, 0, 0, 0, 0}, fragment),
           ChecksumState::kUnchecked));
  Bytes lying_offset = long_tcp;
  lying_offset[20 + 12] = 0x40;  // a TCP header of 16 bytes
  refused(lying_offset, {1, 1, 40, 0, 0xb4, 5, 20, 0, 16, 0});
  refused(tcp(false, 0, 0x10, 5), {1, 0, 0, 0, 0, 0, 20, 0, 18, 0});
  Bytes truncated = four;
  truncated.resize(24);
  refused(truncated, {1, 0, 0, 0, 0, 0, 20, 0, 6, 0});
  refused({}, {1, 0, 0, 0, 0, 0, 20, 0, 6, 0});
}

}  // namespace

int main() {
  golden_bytes();
  writing_refused();
  reading();
  lies();
  return 0;
}
