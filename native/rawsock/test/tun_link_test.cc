// Packets between the tun link and the kernel's own sockets, in a namespace of this test's own.
#include <netinet/tcp.h>
#include <netinet/udp.h>

#include <cerrno>
#include <deque>

#include "tun_fixture.h"

namespace {

using namespace apo;
using namespace apo::test;

constexpr auto kPartial = ChecksumState::kPartial;

const char* own_text(bool six) { return six ? "fd00::1" : "10.0.0.1"; }
const char* kernel_text(bool six) { return six ? "fd00::2" : "10.0.0.2"; }

LinkHarness open_tun() {
  OpenedLink opened = open_tun_link(tun_settings());
  if (opened.error != 0) std::printf("%s: %s\n", opened.step.c_str(), std::strerror(opened.error));
  CHECK(opened.error == 0 && opened.queues.size() == 1 && opened.device.starts_with("test"));
  return LinkHarness(opened.queues.front());
}

// From us to the kernel. The pseudo header's sum is the same both ways.
Bytes to_kernel(bool six, uint8_t protocol, const Bytes& upper) {
  return six ? ipv6(protocol, upper, kOwn6, kPeer6) : ipv4(protocol, upper, kOwn4, kPeer4);
}

// The pseudo header's sum alone, not complemented, as a partial checksum has it.
uint16_t pseudo_sum(bool six, uint8_t protocol, size_t upper_bytes) {
  const size_t n = six ? 16 : 4;
  Bytes pseudo(six ? kOwn6 : kOwn4, (six ? kOwn6 : kOwn4) + n);
  pseudo.insert(pseudo.end(), six ? kPeer6 : kPeer4, (six ? kPeer6 : kPeer4) + n);
  pseudo.insert(pseudo.end(), {static_cast<uint8_t>(upper_bytes >> 8),
                               static_cast<uint8_t>(upper_bytes), 0, protocol});
  return static_cast<uint16_t>(~slow_checksum(pseudo));
}

Bytes udp_upper(uint16_t from, uint16_t to, const Bytes& payload) {
  Bytes upper(8);
  wire::store16(&upper[0], from);
  wire::store16(&upper[2], to);
  wire::store16(&upper[4], static_cast<uint32_t>(8 + payload.size()));
  return concat(upper, payload);
}

Bytes partial_udp(bool six, uint16_t from, uint16_t to, const Bytes& payload) {
  Bytes upper = udp_upper(from, to, payload);
  wire::store16(&upper[6], pseudo_sum(six, 17, upper.size()));
  return to_kernel(six, 17, upper);
}

Bytes counting(size_t length) {
  Bytes bytes(length);
  for (size_t i = 0; i < length; ++i) bytes[i] = static_cast<uint8_t>(i * 7);
  return bytes;
}

void datagrams(bool six) {
  LinkHarness harness = open_tun();
  CHECK(harness.link().mtu() == 1500);
  const KernelSocket kernel(kernel_text(six), 5000);
  const Bytes payload = counting(64);
  CHECK(kernel.send(own_text(six), 2000, payload) == 64);
  const auto received = next_packet(harness, six, 17);
  CHECK(is_offload(received.offload, kPartial));
  CHECK(Bytes(received.bytes.end() - 64, received.bytes.end()) == payload);

  const Bytes whole = to_kernel(six, 17, with_checksum(udp_upper(2000, 5000, payload), 6, six, 17));
  CHECK(harness.send(whole) == LinkCounter::kTxPackets);
  CHECK(kernel.receive() == payload);
  CHECK(harness.send(partial_udp(six, 2000, 5000, payload), {kPartial}) == LinkCounter::kTxPackets);
  CHECK(kernel.receive() == payload);
  CHECK(harness.count(LinkCounter::kRxDroppedVnetHeader) == 0);
}

void udp_super_packets(bool six) {
  LinkHarness harness = open_tun();
  if (!harness.link().features().udp_gso) {
    std::puts("tun_link_test: this kernel's TUN knows no USO: UDP super-packets not tested");
    return;
  }
  const KernelSocket kernel(kernel_text(six), 5000);
  const int segment = 1000;
  CHECK(::setsockopt(kernel.fd.get(), SOL_UDP, UDP_SEGMENT, &segment, sizeof(segment)) == 0);
  const Bytes payload = counting(5500);
  CHECK(kernel.send(own_text(six), 2000, payload) == 5500);
  const auto received = next_packet(harness, six, 17);
  CHECK(is_offload(received.offload, kPartial, GsoKind::kUdp, 1000));
  CHECK(Bytes(received.bytes.end() - 5500, received.bytes.end()) == payload);

  const Offload super = {kPartial, GsoKind::kUdp, 1000};
  CHECK(harness.send(partial_udp(six, 2000, 5000, payload), super) == LinkCounter::kTxPackets);
  for (size_t at = 0; at < payload.size(); at += 1000) {
    const size_t end = std::min<size_t>(at + 1000, payload.size());
    CHECK(kernel.receive() ==
          Bytes(payload.begin() + static_cast<long>(at), payload.begin() + static_cast<long>(end)));
  }
}

struct TcpSegment {
  uint32_t sequence = 0;
  uint32_t acknowledgment = 0;
  uint8_t flags = 0;
  Bytes options;
  Bytes payload;
};

Bytes tcp_to_kernel(bool six, uint16_t port, const TcpSegment& segment) {
  Bytes upper(20);
  wire::store16(&upper[0], 80);
  wire::store16(&upper[2], port);
  wire::store32(&upper[4], segment.sequence);
  wire::store32(&upper[8], segment.acknowledgment);
  upper[12] = static_cast<uint8_t>((20 + segment.options.size()) / 4 << 4);
  upper[13] = segment.flags;
  wire::store16(&upper[14], 65'535);
  upper = concat(concat(upper, segment.options), segment.payload);
  wire::store16(&upper[16], pseudo_sum(six, 6, upper.size()));
  return to_kernel(six, 6, upper);
}

// A handshake by hand, and then as much at once as TSO and GRO have in one packet.
void tcp_super_packets(bool six) {
  LinkHarness harness = open_tun();
  const KernelSocket kernel(kernel_text(six), 5000, SOCK_STREAM);
  const IpEndpoint server = *IpEndpoint::parse(own_text(six), 80);
  CHECK(::connect(kernel.fd.get(), server.raw(), server.raw_length()) == -1 &&
        errno == EINPROGRESS);
  const size_t upper = six ? 40 : 20;
  const auto syn = next_packet(harness, six, 6);
  CHECK(is_offload(syn.offload, kPartial) && syn.bytes[upper + 13] == 0x02);
  uint32_t theirs = wire::load32(&syn.bytes[upper + 4]) + 1;
  const auto send = [&](const TcpSegment& segment, GsoKind kind = GsoKind::kNone) {
    const auto gso_bytes = static_cast<uint16_t>(kind == GsoKind::kNone ? 0 : 1400);
    CHECK(harness.send(tcp_to_kernel(six, 5000, segment), {kPartial, kind, gso_bytes}) ==
          LinkCounter::kTxPackets);
  };
  send({1000, theirs, 0x12, {2, 4, 0x05, 0x78}, {}});  // SYN, ACK, an MSS of 1,400
  CHECK(next_packet(harness, six, 6).bytes[upper + 13] == 0x10);

  const Bytes payload = counting(7000);
  CHECK(::send(kernel.fd.get(), payload.data(), payload.size(), 0) == 7000);
  const GsoKind kind = six ? GsoKind::kTcp6 : GsoKind::kTcp4;
  // How much of it the kernel has in one packet is its own matter; one is larger than a segment.
  Bytes sent;
  size_t super_packets = 0;
  while (sent.size() < payload.size()) {
    const auto received = next_packet(harness, six, 6);
    CHECK(received.offload.checksum_state == kPartial);
    const size_t header = upper + (received.bytes[upper + 12] >> 4) * 4u;
    CHECK(received.bytes.size() >= header);
    if (received.offload.gso_kind != GsoKind::kNone) {
      CHECK(is_offload(received.offload, kPartial, kind, 1400));
      CHECK(received.bytes.size() > header + 1400);
      ++super_packets;
    }
    CHECK(wire::load32(&received.bytes[upper + 4]) == theirs + sent.size());
    sent.insert(sent.end(), received.bytes.begin() + static_cast<long>(header),
                received.bytes.end());
  }
  CHECK(sent == payload && super_packets > 0);
  theirs += 7000;

  send({1001, theirs, 0x18, {}, payload}, kind);
  Bytes all;
  while (all.size() < payload.size()) {
    const Bytes some = kernel.receive();
    CHECK(!some.empty());
    all = concat(all, some);
  }
  CHECK(all == payload);
}

// Flows spread over the queues; each queue sends.
void two_queues() {
  LinkSettings settings = tun_settings();
  settings.set("queues", 2.0);
  OpenedLink opened = open_tun_link(settings);
  CHECK(opened.error == 0 && opened.queues.size() == 2);
  std::deque<LinkHarness> queues;
  for (auto& queue : opened.queues) queues.emplace_back(queue);
  const Bytes payload = counting(64);
  const size_t flows = 64;
  std::vector<KernelSocket> sockets;
  for (size_t i = 0; i < flows; ++i) {
    sockets.emplace_back("10.0.0.2", static_cast<uint16_t>(6000 + i));
    CHECK(sockets.back().send("10.0.0.1", 2000, payload) == 64);
  }
  std::array<size_t, 2> received{};
  while (received[0] + received[1] < flows) {
    pollfd polled[2] = {queues[0].link().poll_set().front(), queues[1].link().poll_set().front()};
    CHECK(::poll(polled, 2, 1000) > 0);
    for (size_t i = 0; i < queues.size(); ++i) {
      for (const auto& one : queues[i].receive()) received[i] += one.bytes[0] >> 4 == 4 ? 1 : 0;
    }
  }
  CHECK(received[0] > 0 && received[1] > 0);
  for (LinkHarness& queue : queues) {
    CHECK(queue.send(partial_udp(false, 2000, 6000, payload), {kPartial}) ==
          LinkCounter::kTxPackets);
    CHECK(sockets[0].receive() == payload);
  }
}

}  // namespace

int main() {
  if (!enter_namespace("tun_link_test")) return 0;
  for (const bool six : {false, true}) {
    datagrams(six);
    udp_super_packets(six);
    tcp_super_packets(six);
  }
  two_queues();
  return 0;
}
