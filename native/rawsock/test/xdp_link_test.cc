// The xdp link on a veth pair of a network namespace made here, with the test as the only other
// station: it sees and sends whole Ethernet frames at the other end. What is ours comes in, what is not
// reaches the kernel, the kernel is silent about our ports, next hops are the kernel's, and nothing
// is left behind. Needs root.
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <functional>
#include <string>
#include <vector>

#include "check.h"
#include "links/link_kinds.h"
#include "links/xdp_link.h"
#include "packet_builder.h"
#include "shared_memory.h"
#include "util/unique_fd.h"
#include "wire/partial_checksum.h"

namespace {

using namespace apo;
using namespace apo::test;

constexpr uint8_t kTcp = 6, kUdp = 17;
constexpr uint16_t kPort = 5004, kForeign = 5005;
constexpr uint8_t kNear4[4] = {10, 0, 0, 3};
constexpr uint8_t kFar4[4] = {192, 0, 2, 7};

bool run(const std::string& command) {
  return std::system((command + " >/dev/null 2>&1").c_str()) == 0;
}

std::string output_of(const std::string& command) {
  FILE* pipe = popen(command.c_str(), "r");
  CHECK(pipe != nullptr);
  std::string text;
  std::array<char, 512> part;
  while (fgets(part.data(), part.size(), pipe) != nullptr) text += part.data();
  pclose(pipe);
  return text;
}

uint64_t now_us() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000 + static_cast<uint64_t>(now.tv_nsec) / 1000;
}

// A pool as JavaScript makes it: page-aligned.
class PoolMemory {
 public:
  explicit PoolMemory(uint32_t small) {
    const std::vector<uint32_t> words = pool_memory(1, small, 4);
    bytes_ = words.size() * 4;
    at_ = mmap(nullptr, bytes_ + 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(at_ != MAP_FAILED);
    std::copy(words.begin(), words.end(), static_cast<uint32_t*>(at_));
  }
  ~PoolMemory() { munmap(at_, bytes_ + 4096); }
  [[nodiscard]] std::span<uint32_t> words() const {
    return {static_cast<uint32_t*>(at_), bytes_ / 4};
  }

 private:
  void* at_;
  size_t bytes_;
};

// The station at the other end, `far0`; ours is `near0`.
class Station {
 public:
  Station() : fd_(socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(0x0003))) {
    CHECK(fd_);
    sockaddr_ll name = {};
    name.sll_family = AF_PACKET;
    name.sll_protocol = htons(0x0003);
    name.sll_ifindex = static_cast<int>(if_nametoindex("far0"));
    CHECK(bind(fd_.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) == 0);
  }

  void send(const Bytes& packet) const {
    Bytes frame = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2};
    const uint8_t version = packet[0] >> 4;
    frame.push_back(version == 4 ? 0x08 : 0x86);
    frame.push_back(version == 4 ? 0x00 : 0xdd);
    send_frame(concat(frame, packet));
  }
  void send_frame(const Bytes& frame) const {
    CHECK(::send(fd_.get(), frame.data(), frame.size(), 0) == static_cast<ssize_t>(frame.size()));
  }
  // The next frame that is not our own and that `wanted` wants; empty when none comes in time.
  [[nodiscard]] Bytes await(const std::function<bool(const Bytes&)>& wanted,
                            uint64_t limit_us = 5'000'000) const {
    const uint64_t end = now_us() + limit_us;
    while (now_us() < end) {
      Bytes frame(2048);
      sockaddr_ll from = {};
      socklen_t length = sizeof from;
      const ssize_t got = recvfrom(fd_.get(), frame.data(), frame.size(), 0,
                                   reinterpret_cast<sockaddr*>(&from), &length);
      if (got < 0) {
        pollfd ready = {fd_.get(), POLLIN, 0};
        poll(&ready, 1, 10);
        continue;
      }
      frame.resize(static_cast<size_t>(got));
      if (from.sll_pkttype != PACKET_OUTGOING && wanted(frame)) return frame;
    }
    return {};
  }

 private:
  UniqueFd fd_;
};

Bytes packet_of(const Bytes& frame) {
  CHECK(frame.size() > 14);
  return Bytes(frame.begin() + 14, frame.end());
}

bool is_ip(const Bytes& frame, uint8_t protocol) {
  if (frame.size() < 34) return false;
  const uint32_t type = wire::load16(&frame[12]);
  return (type == 0x0800 && frame[14 + 9] == protocol) ||
         (type == 0x86dd && frame[14 + 6] == protocol);
}

// The link under test with what a native thread would lend it.
class Bench {
 public:
  Bench(const char* mode, const char* zero_copy, uint32_t small = 2048)
      : memory_(small), pool_(*FramePool::attach(memory_.words(), 0)) {
    LinkSettings settings;
    settings.set("interface", std::string("near0"));
    settings.set("xdpMode", std::string(mode));
    settings.set("zeroCopy", std::string(zero_copy));
    opened_ = open_link("xdp", settings);
    if (opened_.queues.empty()) {
      std::fprintf(stderr, "%s: %s\n", opened_.step.c_str(), std::strerror(opened_.error));
    }
    CHECK(opened_.queues.size() == 1 && opened_.device == "near0");
    const LinkContext context = {pool_, LinkCounters(std::span<uint64_t, kLinkCounters>(cells_)),
                                 Doorbell(&bell_)};
    const int error = link().start(context);
    if (error != 0) std::fprintf(stderr, "start: %s\n", std::strerror(error));
    CHECK(error == 0);
  }
  ~Bench() {
    end();
    CHECK(pool_.frames_in_use(0) == 0);
  }
  void end() {
    link().close();
    while (!receive().empty()) {
    }
  }

  [[nodiscard]] Link& link() { return *opened_.queues.front(); }
  [[nodiscard]] const OpenedLink& opened() const { return opened_; }
  [[nodiscard]] FramePool& pool() { return pool_; }
  [[nodiscard]] uint64_t count(LinkCounter counter) const {
    return cells_[static_cast<size_t>(counter)];
  }

  struct Received {
    Bytes bytes;
    Offload offload;
  };
  std::vector<Received> receive() {
    std::array<IncomingPacket, Link::kBatch> packets;
    const size_t count = link().receive(packets);
    std::vector<Received> received;
    for (size_t i = 0; i < count; ++i) {
      const std::span<uint8_t> frame = pool_.frame(packets[i].frame);
      CHECK(packets[i].offset + packets[i].length <= frame.size());
      CHECK(packets[i].offset % 16 == 0);
      const uint8_t* at = frame.data() + packets[i].offset;
      received.push_back({Bytes(at, at + packets[i].length), packets[i].offload});
      CHECK(pool_.release(packets[i].frame));
    }
    return received;
  }
  // As the native thread does, until `count` packets are here or the time is up.
  std::vector<Received> await(size_t count, uint64_t limit_us = 5'000'000) {
    const uint64_t end = now_us() + limit_us;
    std::vector<Received> all;
    while (all.size() < count && now_us() < end) {
      for (Received& one : receive()) all.push_back(std::move(one));
      rest();
    }
    return all;
  }
  // Sleeps as the native thread does, 20 ms at most.
  void rest() {
    if (now_us() >= link().deadline_us()) link().tick(now_us());
    if (link().prepare_sleep()) {
      std::vector<pollfd> polled(link().poll_set().begin(), link().poll_set().end());
      poll(polled.data(), polled.size(), 20);
    }
    link().finish_sleep();
  }
  LinkCounter send(const Bytes& bytes) {
    OutgoingPacket packet;
    packet.bytes = bytes;
    link().send({&packet, 1});
    return packet.result;
  }

 private:
  PoolMemory memory_;
  FramePool pool_;
  std::array<uint64_t, kLinkCounters> cells_{};
  uint32_t bell_ = 0;
  OpenedLink opened_;
};

// False: not allowed here.
bool make_network() {
  if (unshare(CLONE_NEWNET) != 0) return false;
  CHECK(
      run("ip link add near0 address 02:00:00:00:00:01 type veth peer name far0 address "
          "02:00:00:00:00:02"));
  CHECK(run("ip link set far0 addrgenmode none && ip link set near0 addrgenmode none"));
  CHECK(run("ip link set lo up && ip link set far0 up && ip link set near0 up"));
  CHECK(run("ip addr add 10.0.0.1/24 dev near0 && ip addr add fd00::1/64 dev near0 nodad"));

  return true;
}

Bytes tcp_syn(bool six, uint16_t to_port) {
  Bytes upper(20);
  wire::store16(&upper[0], 40'000);
  wire::store16(&upper[2], to_port);
  upper[12] = 0x50;
  upper[13] = 0x02;
  upper = with_checksum(upper, 16, six, kTcp);
  return six ? ipv6(kTcp, upper) : ipv4(kTcp, upper);
}

void neighbours_are_known() {
  CHECK(run("ip neigh replace 10.0.0.2 lladdr 02:00:00:00:00:02 dev near0 nud permanent"));
  CHECK(run("ip neigh replace fd00::2 lladdr 02:00:00:00:00:02 dev near0 nud permanent"));
}

void ours_come_in_and_others_do_not(Bench& bench, const Station& station) {
  CHECK(bench.link().mtu() == 1500);
  CHECK(bench.opened().addresses.size() == 2);
  const Bytes hello = {'h', 'e', 'l', 'l', 'o'};
  // Not open yet: the kernel answers that the port is unreachable.
  for (const bool six : {false, true}) {
    station.send(udp(six, 9, kPort, hello));
    CHECK(!station.await([&](const Bytes& frame) { return is_ip(frame, six ? 58 : 1); }).empty());
  }
  CHECK(bench.receive().empty());
  CHECK(bench.link().open_port(kUdp, kPort) == 0);
  CHECK(bench.link().open_port(kTcp, kPort) == 0);
  for (const bool six : {false, true}) {
    station.send(udp(six, 9, kPort, hello));
    station.send(tcp_syn(six, kPort));
    const auto received = bench.await(2);
    CHECK(received.size() == 2);
    CHECK(received[0].bytes == udp(six, 9, kPort, hello));
    CHECK(received[0].offload.checksum_state == ChecksumState::kUnchecked);
    CHECK(received[1].bytes == tcp_syn(six, kPort));
    // An error about a packet of ours, and one about a packet of the kernel's.
    const Bytes ours = six ? ipv6(kUdp, udp(true, kPort, 9, hello), kOwn6, kPeer6)
                           : ipv4(kUdp, Bytes(8), kOwn4, kPeer4);
    Bytes quoted =
        six ? ipv6(kUdp, Bytes(16), kOwn6, kPeer6) : ipv4(kUdp, Bytes(16), kOwn4, kPeer4);
    wire::store16(&quoted[six ? 40 : 20], kPort);
    station.send(icmp(six, six ? 1 : 3, six ? 4 : 3, 0, quoted));
    CHECK(bench.await(1).size() == 1);
  }
  // A foreign port is refused by the kernel, and the refusals are all that comes out: about our
  // port there is no word.
  station.send(tcp_syn(false, kForeign));
  const Bytes refused = station.await(
      [](const Bytes& frame) { return is_ip(frame, kTcp) || is_ip(frame, 1) || is_ip(frame, 58); });
  CHECK(!refused.empty() && is_ip(refused, kTcp) && wire::load16(&refused[34]) == kForeign);
  CHECK(bench.receive().empty());
}

void a_partial_checksum_is_told(Bench& bench, const Station& station) {
  Bytes packet = udp(false, 9, kPort, {1, 2, 3, 4});
  const wire::Sum sum = wire::checksum_pseudo_header(&packet[12], 4, 12, kUdp);
  wire::store16(&packet[26], static_cast<uint16_t>(~wire::checksum_finish(sum)));
  station.send(packet);
  const auto received = bench.await(1);
  CHECK(received.size() == 1 && received[0].bytes == packet);
  CHECK(received[0].offload.checksum_state == ChecksumState::kPartial);
  CHECK(bench.count(LinkCounter::kRxPartialChecksums) == 1);
}

void fragments_follow_the_first(Bench& bench, const Station& station) {
  Bytes start = udp(false, 9, kPort, Bytes(16));
  wire::store16(&start[4], 77);
  wire::store16(&start[6], 0x2000);
  wire::store16(&start[10], 0);
  wire::store16(&start[10], slow_checksum(Bytes(start.begin(), start.begin() + 20)));
  Bytes rest = ipv4(kUdp, Bytes(40, 7));
  wire::store16(&rest[4], 77);
  wire::store16(&rest[6], 3);
  wire::store16(&rest[10], 0);
  wire::store16(&rest[10], slow_checksum(Bytes(rest.begin(), rest.begin() + 20)));
  station.send(start);
  station.send(rest);
  const auto received = bench.await(2);
  CHECK(received.size() == 2 && received[0].bytes == start && received[1].bytes == rest);
}

void packets_go_out(Bench& bench, const Station& station) {
  for (const bool six : {false, true}) {
    Bytes packet =
        six ? ipv6(kUdp, Bytes(600, 5), kOwn6, kPeer6) : ipv4(kUdp, Bytes(600, 5), kOwn4, kPeer4);
    CHECK(bench.send(packet) == LinkCounter::kTxPackets);
    const Bytes frame = station.await([&](const Bytes& seen) { return is_ip(seen, kUdp); });
    CHECK(packet_of(frame) == packet);
    CHECK(frame[0] == 2 && frame[5] == 2 && frame[6] == 2 && frame[11] == 1);
  }
  // More than the ring and the frames for it hold.
  constexpr size_t kMany = 3000;
  Bytes packet = ipv4(kUdp, Bytes(100, 9), kOwn4, kPeer4);
  size_t sent = 0;
  for (size_t i = 0; i < kMany; i += 50) {
    std::array<OutgoingPacket, 50> batch;
    for (OutgoingPacket& one : batch) one.bytes = packet;
    bench.link().send(batch);
    for (const OutgoingPacket& one : batch) sent += one.result == LinkCounter::kTxPackets;
    for (size_t k = 0; k < 50; ++k) {
      CHECK(!station.await([&](const Bytes& seen) { return is_ip(seen, kUdp); }).empty());
    }
  }
  CHECK(sent == kMany);
  Bytes big = ipv4(kUdp, Bytes(1481), kOwn4, kPeer4);
  CHECK(bench.send(big) == LinkCounter::kTxDroppedTooBig);
  const uint8_t elsewhere[4] = {203, 0, 113, 1};
  CHECK(bench.send(ipv4(kUdp, Bytes(8), kOwn4, elsewhere)) == LinkCounter::kTxDroppedNoRoute);
  CHECK(bench.send(ipv4(kUdp, Bytes(8), kOwn4, kOwn4)) == LinkCounter::kTxDroppedNoRoute);
  const uint8_t group[4] = {239, 1, 2, 3};
  CHECK(bench.send(ipv4(kUdp, Bytes(8), kOwn4, group)) == LinkCounter::kTxPackets);
  const Bytes frame = station.await([](const Bytes& seen) { return is_ip(seen, kUdp); });
  CHECK(frame[0] == 1 && frame[2] == 0x5e && frame[3] == 1 && frame[4] == 2 && frame[5] == 3);
}

Bytes arp_answer(const Bytes& question) {
  Bytes answer = question;
  std::copy(&question[6], &question[12], &answer[0]);
  const uint8_t mac[6] = {2, 0, 0, 0, 0, 2};
  std::copy(mac, mac + 6, &answer[6]);
  answer[21] = 2;                                        // reply
  std::copy(&question[22], &question[32], &answer[32]);  // to whoever asked
  std::copy(mac, mac + 6, &answer[22]);
  std::copy(&question[38], &question[42], &answer[28]);
  return answer;
}

bool is_arp_question(const Bytes& frame) {
  return frame.size() >= 42 && wire::load16(&frame[12]) == 0x0806 && frame[21] == 1;
}

// By the route's gateway, which nobody knows yet: the kernel asks, our packets wait.
void packets_wait_for_a_neighbour(Bench& bench, const Station& station) {
  const uint64_t sent = bench.count(LinkCounter::kNeighbourReleased);
  Bytes packet = ipv4(kUdp, Bytes(64, 3), kOwn4, kFar4);
  for (int i = 0; i < 3; ++i) {
    CHECK(bench.send(packet) == LinkCounter::kTxParked);
  }
  CHECK(bench.send(packet) == LinkCounter::kTxDroppedUnresolved);
  const Bytes question = station.await(is_arp_question);
  CHECK(!question.empty() && std::equal(kNear4, kNear4 + 4, &question[38]));
  station.send_frame(arp_answer(question));
  const uint64_t end = now_us() + 5'000'000;
  while (bench.count(LinkCounter::kNeighbourReleased) < sent + 3 && now_us() < end) bench.rest();
  CHECK(bench.count(LinkCounter::kNeighbourReleased) == sent + 3);
  for (int i = 0; i < 3; ++i) {
    CHECK(packet_of(station.await([](const Bytes& seen) { return is_ip(seen, kUdp); })) == packet);
  }
  CHECK(bench.send(packet) == LinkCounter::kTxPackets);
  CHECK(!station.await([](const Bytes& seen) { return is_ip(seen, kUdp); }).empty());
  CHECK(bench.count(LinkCounter::kNeighbourAsks) >= 1);
}

void a_silent_neighbour_is_given_up(Bench& bench) {
  const uint8_t silent[16] = {0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x77};
  CHECK(bench.send(ipv6(kUdp, Bytes(16), kOwn6, silent)) == LinkCounter::kTxParked);
  const uint64_t end = now_us() + 5'000'000;
  while (bench.count(LinkCounter::kNeighbourDroppedUnreachable) == 0 && now_us() < end)
    bench.rest();
  CHECK(bench.count(LinkCounter::kNeighbourDroppedUnreachable) == 1);
  CHECK(bench.count(LinkCounter::kNeighbourFailed) >= 1);
}

void routes_are_followed(Bench& bench, const Station& station) {
  const uint8_t elsewhere[4] = {203, 0, 113, 9};
  const Bytes packet = ipv4(kUdp, Bytes(8), kOwn4, elsewhere);
  CHECK(bench.send(packet) == LinkCounter::kTxDroppedNoRoute);
  CHECK(run("ip route add 203.0.113.0/24 via 10.0.0.2"));
  const uint64_t end = now_us() + 5'000'000;
  while (bench.send(packet) != LinkCounter::kTxPackets && now_us() < end) bench.rest();
  CHECK(!station.await([](const Bytes& seen) { return is_ip(seen, kUdp); }).empty());
  CHECK(run("ip route del 203.0.113.0/24"));
  while (bench.send(packet) == LinkCounter::kTxPackets && now_us() < end) bench.rest();
  CHECK(bench.send(packet) == LinkCounter::kTxDroppedNoRoute);
}

UniqueFd kernel_socket(int type, uint16_t port, int* error) {
  UniqueFd fd(socket(AF_INET, type | SOCK_CLOEXEC, 0));
  sockaddr_in name = {};
  name.sin_family = AF_INET;
  name.sin_port = htons(port);
  *error = bind(fd.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) < 0 ? errno : 0;
  return fd;
}

void a_port_is_held_against_the_kernel(Bench& bench) {
  for (const int type : {SOCK_DGRAM, SOCK_STREAM}) {
    const uint8_t protocol = type == SOCK_DGRAM ? kUdp : kTcp;
    int error = 0;
    CHECK(kernel_socket(type, 6000, &error) && error == 0);
    {
      const UniqueFd held = kernel_socket(type, 6000, &error);
      CHECK(error == 0 && bench.link().open_port(protocol, 6000) == EADDRINUSE);
    }
    CHECK(bench.link().open_port(protocol, 6000) == 0);
    CHECK(bench.link().open_port(protocol, 6000) == 0);  // two may want it
    (void)kernel_socket(type, 6000, &error);
    CHECK(error == EADDRINUSE);
    bench.link().close_port(protocol, 6000);
    (void)kernel_socket(type, 6000, &error);
    CHECK(error == EADDRINUSE);
    bench.link().close_port(protocol, 6000);
    (void)kernel_socket(type, 6000, &error);
    CHECK(error == 0);
  }
  CHECK(bench.link().open_port(132, 6000) == EINVAL && bench.link().open_port(kUdp, 0) == EINVAL);
}

// With every frame in use packets are dropped and counted, and it goes on when they are back.
void a_short_pool_drops_and_recovers(Bench& bench, const Station& station) {
  std::vector<uint32_t> taken;
  while (const uint32_t ref = bench.pool().allocate(false)) taken.push_back(ref);
  const Bytes packet = udp(false, 9, kPort, {1});
  const uint64_t end = now_us() + 5'000'000;
  while (bench.count(LinkCounter::kRxDroppedPoolEmpty) < 5 && now_us() < end) {
    station.send(packet);
    // A frame that was received is kept, so that the spare ones come to an end.
    std::array<IncomingPacket, Link::kBatch> packets;
    const size_t count = bench.link().receive(packets);
    for (size_t i = 0; i < count; ++i) taken.push_back(packets[i].frame);
  }
  CHECK(bench.count(LinkCounter::kRxDroppedPoolEmpty) >= 5);
  for (const uint32_t ref : taken) CHECK(bench.pool().release(ref));
  (void)bench.await(Link::kBatch, 100'000);
  station.send(packet);
  CHECK(bench.await(1).size() == 1);
}

bool has_program() { return output_of("ip link show dev near0").find("xdp") != std::string::npos; }

void one_mode(const char* mode, const char* zero_copy) {
  const Station station;
  CHECK(run("ip route replace 192.0.2.0/24 via 10.0.0.3"));
  {
    Bench bench(mode, zero_copy);
    CHECK(has_program());
    neighbours_are_known();
    for (int i = 0; i < 20; ++i) bench.rest();
    ours_come_in_and_others_do_not(bench, station);
    a_partial_checksum_is_told(bench, station);
    fragments_follow_the_first(bench, station);
    packets_go_out(bench, station);
    packets_wait_for_a_neighbour(bench, station);
    a_silent_neighbour_is_given_up(bench);
    routes_are_followed(bench, station);
    a_port_is_held_against_the_kernel(bench);
    a_short_pool_drops_and_recovers(bench, station);
    bench.end();
    CHECK(!has_program());
    CHECK(bench.link().open_port(kUdp, 7000) == ENODEV);
    CHECK(bench.send(ipv4(kUdp, Bytes(8), kOwn4, kPeer4)) == LinkCounter::kTxDroppedLinkDown);
  }
  CHECK(run("ip neigh flush dev near0"));
}

OpenedLink open_with(const char* interface, const char* mode = "generic") {
  LinkSettings settings;
  settings.set("interface", std::string(interface));
  settings.set("xdpMode", std::string(mode));
  return open_link("xdp", settings);
}

void failures_name_their_step() {
  OpenedLink failed = open_with("nothing0");
  CHECK(failed.queues.empty() && failed.error == ENODEV && failed.step == "RTM_GETLINK");
  failed = open_with("lo");
  CHECK(failed.error == EPROTOTYPE && failed.step == "hardware type");
  CHECK(run("ip link set near0 mtu 9000"));
  failed = open_with("near0");
  CHECK(failed.error == EMSGSIZE && failed.step == "MTU 9000");
  CHECK(run("ip link set near0 mtu 1500"));
  {
    const OpenedLink first = open_with("near0");
    CHECK(first.error == 0);
    failed = open_with("near0");
    CHECK(failed.error == EBUSY && failed.step == "bpf(BPF_LINK_CREATE)");
    failed = open_with("near0", "native");
    CHECK(failed.error == EEXIST && failed.step == "bpf(BPF_LINK_CREATE)");
    for (const auto& queue : first.queues) queue->close();
  }
  // Memory that is not page-aligned cannot be lent to the kernel.
  const OpenedLink opened = open_with("near0");
  std::vector<uint32_t> words = pool_memory(1, 512, 4);
  std::vector<uint32_t> moved(words.size() + 1024);
  auto* at = moved.data();
  while (reinterpret_cast<uintptr_t>(at) % 4096 != 64) ++at;
  std::copy(words.begin(), words.end(), at);
  std::array<uint64_t, kLinkCounters> cells{};
  uint32_t bell = 0;
  const FramePool pool = *FramePool::attach({at, words.size()}, 0);
  const LinkContext context = {pool, LinkCounters(std::span<uint64_t, kLinkCounters>(cells)),
                               Doorbell(&bell)};
  CHECK(opened.queues.front()->start(context) == EFAULT);
  opened.queues.front()->close();
  failed = open_with("far0");
  CHECK(failed.error == EADDRNOTAVAIL && failed.step == "RTM_GETADDR");
  CHECK(run("ip link set near0 down"));
  failed = open_with("near0");
  CHECK(failed.error == ENETDOWN && failed.step == "interface state");
  CHECK(run("ip link set near0 up && ip addr replace fd00::1/64 dev near0 nodad"));
}

// A process that is killed leaves no program behind.
void death_detaches() {
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    const OpenedLink opened = open_with("near0", "native");
    if (opened.queues.size() != 1) _exit(1);
    raise(SIGSTOP);
    _exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
  CHECK(has_program());
  kill(child, SIGKILL);
  CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
  CHECK(!has_program());
}

}  // namespace

int main() {
  if (geteuid() != 0 || !make_network()) {
    std::printf("skipped: the xdp link on a veth pair (needs root)\n");
    return 0;
  }
  failures_name_their_step();
  one_mode("generic", "no");
  one_mode("native", "auto");
  death_detaches();
}
