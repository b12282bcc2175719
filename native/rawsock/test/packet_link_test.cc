// Two packet links on the ends of a veth pair, in a network namespace of this program's own: what
// one sends the other gets, through the plain socket and through the ring, super-packets too, and
// none is lost, doubled or overtaken when the way changes. Needs root and `ip`.
#include <sched.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>

#include "check.h"
#include "links/packet_link.h"
#include "packet_builder.h"
#include "shared_memory.h"
#include "util/clock.h"
#include "wire/udp.h"

namespace {

using namespace apo;
using namespace apo::test;

constexpr uint64_t kPatienceUs = 20'000'000;

// A link and what its native thread would lend it.
struct End {
  std::vector<uint32_t> pool_words = pool_memory(1, 2048, 64);
  std::vector<uint64_t> cells = std::vector<uint64_t>(kLinkCounters);
  uint32_t bell = 0;
  FramePool pool = *FramePool::attach(pool_words, 0);
  OpenedLink opened;
  std::vector<LinkContext> contexts;

  End(const char* device, const uint8_t* four, const uint8_t* six, int queues = 1) {
    LinkSettings settings;
    settings.addresses.add({{IpAddress::from_bytes(4, four), 24}});
    settings.addresses.add({{IpAddress::from_bytes(6, six), 64}});
    settings.set("interface", std::string(device));
    settings.set("queues", static_cast<double>(queues));
    settings.set("ringAbove", 20.0);  // reached on the slowest machine
    opened = open_link("packet", settings);
    if (opened.error != 0) std::fprintf(stderr, "%s: %d\n", opened.step.c_str(), opened.error);
    CHECK(opened.error == 0 && opened.device == device);
    CHECK(opened.queues.size() == static_cast<size_t>(queues));
    for (auto& queue : opened.queues) {
      CHECK(queue->start({pool, LinkCounters(std::span<uint64_t, kLinkCounters>(cells)),
                          Doorbell(&bell)}) == 0);
      CHECK(queue->mtu() == 1500 && queue->poll_set().size() == 2);
    }
  }

  [[nodiscard]] uint64_t counted(LinkCounter counter) const {
    return cells[static_cast<size_t>(counter)];
  }
  LinkCounter send(const Bytes& packet, const Offload& offload = {}) {
    OutgoingPacket out{packet, offload};
    opened.queues[0]->send({&out, 1});
    return out.result;
  }
  // What has come to one queue, by whatever way; frames go back at once.
  template <typename Handle>
  size_t receive(size_t queue, Handle handle) {
    Link& link = *opened.queues[queue];
    std::array<IncomingPacket, Link::kBatch> packets;
    const size_t count = link.receive(packets);
    for (size_t i = 0; i < count; ++i) {
      const std::span<uint8_t> frame = pool.frame(packets[i].frame);
      handle(frame.subspan(packets[i].offset, packets[i].length), packets[i].offload);
      pool.release(packets[i].frame);
    }
    const uint64_t now_us = clock_us();
    if (link.deadline_us() <= now_us) link.tick(now_us);
    if (count == 0 && link.prepare_sleep()) link.finish_sleep();
    return count;
  }
};

constexpr uint8_t kLeft4[4] = {10, 0, 0, 1};
constexpr uint8_t kRight4[4] = {10, 0, 0, 2};

struct Pair {
  End left{"left", kOwn4, kOwn6};
  End right{"right", kPeer4, kPeer6};
};

// Until `done`, both ends do what their threads would.
template <typename Done, typename Handle>
void run(End& left, End& right, Handle at_right, Done done) {
  const uint64_t deadline_us = clock_us() + kPatienceUs;
  while (!done()) {
    CHECK(clock_us() < deadline_us);
    left.receive(0, [](auto, const Offload&) {});
    for (size_t queue = 0; queue < right.opened.queues.size(); ++queue) {
      right.receive(queue, at_right);
    }
  }
}

void resolves_and_delivers() {
  Pair ends;
  const auto nothing = [](auto, const Offload&) {};
  Bytes got;
  const auto keep = [&](std::span<const uint8_t> packet, const Offload& offload) {
    got.assign(packet.begin(), packet.end());
    CHECK(offload.gso_kind == GsoKind::kNone);
  };
  for (const bool six : {false, true}) {
    Bytes packet = six ? ipv6(17, Bytes(8), kOwn6, kPeer6) : ipv4(17, Bytes(8), kLeft4, kRight4);
    packet.resize(packet.size() + (six ? 0 : 0));
    CHECK(ends.left.send(packet) == LinkCounter::kTxParked);
    got.clear();
    run(ends.left, ends.right, keep, [&] { return got == packet; });
    CHECK(ends.left.send(packet) == LinkCounter::kTxPackets);
    got.clear();
    run(ends.left, ends.right, keep, [&] { return got == packet; });
  }
  CHECK(ends.left.counted(LinkCounter::kNeighbourReleased) == 2);
  CHECK(ends.right.counted(LinkCounter::kNeighbourAnswers) == 2);
  // Larger than the device takes, and to nobody.
  CHECK(ends.left.send(ipv4(17, Bytes(1500), kLeft4, kRight4)) == LinkCounter::kTxDroppedTooBig);
  const uint8_t far[] = {192, 0, 2, 1};
  CHECK(ends.left.send(ipv4(17, Bytes(8), kLeft4, far)) == LinkCounter::kTxDroppedNoRoute);
  run(ends.left, ends.right, nothing, [] { return true; });
  ends.left.opened.queues[0]->close();
  ends.left.opened.queues[0]->close();
}

// A UDP or TCP super-packet with a partial checksum, as a transport would send it.
Bytes super_packet(bool tcp, bool six, size_t payload) {
  Bytes upper(tcp ? 20 : 8);
  wire::store16(&upper[0], 1000);
  wire::store16(&upper[2], 2000);
  if (tcp) {
    upper[12] = 5 << 4;
    upper[13] = 0x10;
  } else {
    wire::store16(&upper[4], static_cast<uint32_t>(8 + payload));
  }
  for (size_t i = 0; i < payload; ++i) upper.push_back(static_cast<uint8_t>(i * 7));
  const uint8_t protocol = tcp ? 6 : 17;
  const Bytes packet =
      six ? ipv6(protocol, upper, kOwn6, kPeer6) : ipv4(protocol, upper, kLeft4, kRight4);
  Bytes partial = packet;
  const size_t header = six ? 40 : 20;
  // The pseudo header's sum, not complemented: what remains is the device's.
  Bytes pseudo(packet.begin() + (six ? 8 : 12), packet.begin() + static_cast<long>(header));
  Bytes length = {0, 0, 0, 0, 0, 0, 0, protocol};
  wire::store32(length.data(), static_cast<uint32_t>(upper.size()));
  const auto sum = static_cast<uint16_t>(~slow_checksum(concat(pseudo, length)));
  wire::store16(&partial[header + (tcp ? 16 : 6)], sum);
  return partial;
}

void carries_super_packets() {
  Pair ends;
  const LinkFeatures features = ends.left.opened.queues[0]->features();
  CHECK(features.checksum && features.tcp_gso && features.udp_gso);
  for (const bool six : {false, true}) {
    const Bytes first =
        six ? ipv6(17, Bytes(8), kOwn6, kPeer6) : ipv4(17, Bytes(8), kLeft4, kRight4);
    CHECK(ends.left.send(first) == LinkCounter::kTxParked);
    run(
        ends.left, ends.right, [](auto, const Offload&) {},
        [&] { return ends.left.counted(LinkCounter::kNeighbourReleased) == (six ? 2u : 1u); });
    for (const bool tcp : {false, true}) {
      const GsoKind kind = !tcp ? GsoKind::kUdp : six ? GsoKind::kTcp6 : GsoKind::kTcp4;
      const Bytes packet = super_packet(tcp, six, 60'000);
      bool same = false;
      const auto compare = [&](std::span<const uint8_t> got, const Offload& offload) {
        if (got.size() != packet.size()) return;
        same = std::equal(got.begin(), got.end(), packet.begin()) && offload.gso_kind == kind &&
               offload.gso_bytes == 1400 && offload.checksum_state == ChecksumState::kPartial;
      };
      CHECK(ends.left.send(packet, {ChecksumState::kPartial, kind, 1400}) ==
            LinkCounter::kTxPackets);
      run(ends.left, ends.right, compare, [&] { return same; });
      // One that says what it is not.
      CHECK(ends.left.send(packet, {ChecksumState::kPartial, tcp ? GsoKind::kUdp : GsoKind::kTcp4,
                                    1400}) == LinkCounter::kTxDroppedRefused);
    }
    const Bytes small = super_packet(false, six, 100);
    bool same = false;
    CHECK(ends.left.send(small, {ChecksumState::kPartial}) == LinkCounter::kTxPackets);
    run(
        ends.left, ends.right,
        [&](std::span<const uint8_t> got, const Offload& offload) {
          same |= std::equal(got.begin(), got.end(), small.begin(), small.end()) &&
                  offload.checksum_state == ChecksumState::kPartial;
        },
        [&] { return same; });
  }
}

// Bursts with pauses, so that the receiver changes over to the ring and back: every packet once, and
// each flow in its order.
void changes_over_in_order(int queues) {
  End left("left", kOwn4, kOwn6);
  End right("right", kPeer4, kPeer6, queues);
  constexpr uint32_t kFlows = 8;
  std::map<uint32_t, uint32_t> expected;
  uint64_t got = 0;
  const auto check = [&](std::span<const uint8_t> packet, const Offload&) {
    if (packet.size() != 20 + 8 + 8) return;
    const uint32_t flow = wire::load16(packet.data() + 20);
    CHECK(flow < kFlows && wire::load32(packet.data() + 28) == expected[flow]);
    ++expected[flow];
    ++got;
  };
  CHECK(left.send(ipv4(17, Bytes(8), kLeft4, kRight4)) == LinkCounter::kTxParked);
  run(left, right, check, [&] { return left.counted(LinkCounter::kNeighbourReleased) == 1; });

  uint64_t sent = 0;
  uint32_t number = 0;
  std::array<Bytes, Link::kBatch> packets;
  std::array<OutgoingPacket, Link::kBatch> out;
  for (int burst = 0; burst < 3; ++burst) {
    const uint64_t end_us = clock_us() + 150'000;
    while (clock_us() < end_us) {
      for (size_t i = 0; i < Link::kBatch; ++i) {
        Bytes upper(16);
        wire::store16(&upper[0], static_cast<uint32_t>(i % kFlows));
        wire::store16(&upper[2], 9);
        wire::store16(&upper[4], 16);
        wire::store32(&upper[8], number + static_cast<uint32_t>(i / kFlows));
        packets[i] = ipv4(17, upper, kLeft4, kRight4);
        out[i] = {packets[i], {}};
      }
      number += Link::kBatch / kFlows;
      left.opened.queues[0]->send(out);
      for (const OutgoingPacket& packet : out) CHECK(packet.result == LinkCounter::kTxPackets);
      sent += Link::kBatch;
      // Never more on the way than the plain socket's buffer has room for.
      run(left, right, check, [&] { return sent - got < 2000; });
    }
    run(left, right, check, [&] { return got == sent; });
    // Quiet until it is back on the plain socket, and a little load there.
    const uint64_t quiet_us = clock_us() + 100'000;
    run(left, right, check, [&] { return clock_us() > quiet_us; });
  }
  uint64_t turns = 0;
  for (const auto& queue : right.opened.queues) {
    turns += static_cast<const PacketLink&>(*queue).ring_turns();
  }
  CHECK(turns > 0);
  CHECK(right.counted(LinkCounter::kRxDroppedRingFull) == 0);
  CHECK(right.pool.frames_in_use(0) == 0 && left.pool.frames_in_use(0) == 0);
}

bool enter_namespace() {
  if (::geteuid() != 0 || ::unshare(CLONE_NEWNET) != 0) return false;
  return std::system(
             "ip link add left type veth peer name right && ip link set left up && "
             "ip link set right up && ip link set lo up") == 0;
}

}  // namespace

int main() {
  if (!enter_namespace()) {
    std::printf("packet_link_test: skipped: it needs root, `ip` and veth\n");
    return 0;
  }
  resolves_and_delivers();
  carries_super_packets();
  changes_over_in_order(1);
  changes_over_in_order(2);
}
