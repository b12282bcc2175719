// The fd link over socket pairs: what arrives, what leaves, what is dropped and counted, and how it
// ends.
#include "links/fd_link.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <thread>

#include "link_harness.h"

namespace {

using namespace apo;
using namespace apo::test;

constexpr auto kPartial = ChecksumState::kPartial;

// What a header of all zeroes before a packet is; none at all when it has no bytes.
Bytes framed(size_t header_bytes, const Bytes& packet) {
  return concat(Bytes(header_bytes, 0), packet);
}

Bytes packet_of(size_t length) { return udp(false, 1000, 2000, Bytes(length - 28, 0x5a)); }

OpenedLink open_link_on(int fd, size_t header_bytes = 0) {
  LinkSettings settings;
  settings.set("fd", static_cast<double>(fd));
  settings.set("vnetHeaderBytes", static_cast<double>(header_bytes));
  return open_fd_link(settings);
}

struct Pair {
  explicit Pair(int type, size_t header_bytes = 0, uint32_t small = 256, uint32_t large = 64) {
    int fds[2];
    CHECK(::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds) == 0);
    ours = UniqueFd(fds[0]);
    peer = UniqueFd(fds[1]);
    const int bytes = 1 << 20;
    for (const int fd : fds) {
      CHECK(::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)) == 0);
    }
    OpenedLink opened = open_link_on(ours.get(), header_bytes);
    CHECK(opened.error == 0 && opened.queues.size() == 1);
    harness.emplace(opened.queues.front(), small, large);
  }
  void put(const Bytes& bytes) {
    CHECK(::send(peer.get(), bytes.data(), bytes.size(), MSG_DONTWAIT) ==
          static_cast<ssize_t>(bytes.size()));
  }
  Bytes get() {
    Bytes bytes(70'000);
    const ssize_t got = ::recv(peer.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    CHECK(got >= 0);
    bytes.resize(static_cast<size_t>(got));
    return bytes;
  }
  LinkHarness* operator->() { return &*harness; }

  UniqueFd ours;
  UniqueFd peer;
  std::optional<LinkHarness> harness;
};

void receives(int type, size_t header_bytes) {
  Pair pair(type, header_bytes);
  CHECK(pair->receive().empty());
  for (const size_t length : {28u, 64u, 1500u, 1984u, 1985u, 9000u, 65'535u}) {
    const Bytes packet = packet_of(length);
    pair.put(framed(header_bytes, packet));
    const auto received = pair->receive();
    CHECK(received.size() == 1);
    CHECK(received[0].bytes == packet);
    CHECK(received[0].offset == (length <= 1984 ? 64 : 0));
    CHECK(is_offload(received[0].offload, ChecksumState::kUnchecked));
  }
  // Several at once, of both sizes, in their order. The sockets of Linux take ten datagrams or
  // more.
  for (size_t i = 0; i < 10; ++i) {
    pair.put(framed(header_bytes, packet_of(i % 3 == 0 ? 3000 + i : 100 + i)));
  }
  const auto all = pair->receive_all(10);
  for (size_t i = 0; i < 10; ++i) {
    CHECK(all[i].bytes == packet_of(i % 3 == 0 ? 3000 + i : 100 + i));
  }
}

void receives_offloads() {
  Pair pair(SOCK_SEQPACKET, 10);
  const Bytes packet = packet_of(2028);
  pair.put(concat({1, 5, 28, 0, 200, 0, 20, 0, 6, 0}, packet));
  pair.put(concat({1, 0, 28, 0, 0, 0, 20, 0, 6, 0}, packet));
  pair.put(concat({2, 0, 0, 0, 0, 0, 0, 0, 0, 0}, packet));
  const auto all = pair->receive_all(3);
  CHECK(is_offload(all[0].offload, kPartial, GsoKind::kUdp, 200));
  CHECK(is_offload(all[1].offload, kPartial));
  CHECK(is_offload(all[2].offload, ChecksumState::kVerified));
}

void drops() {
  Pair pair(SOCK_SEQPACKET, 10);
  const Bytes packet = packet_of(100);
  pair.put(concat({1, 0, 28, 0, 0, 0, 21, 0, 6, 0}, packet));  // a header that lies
  pair.put({0, 0, 0, 0, 0, 0, 0, 0, 0});                       // less than a header
  pair.put(framed(10, {}));                                    // no packet at all
  pair.put(framed(10, Bytes(65'536, 0x45)));                   // more than IP allows
  pair.put(framed(10, Bytes(69'000, 0x45)));                   // more than a frame holds
  pair.put({});
  pair.put(framed(10, packet));
  CHECK(pair->receive_all(1)[0].bytes == packet);
  CHECK(pair->count(LinkCounter::kRxDroppedVnetHeader) == 3);
  CHECK(pair->count(LinkCounter::kRxDroppedHeader) == 1);
  CHECK(pair->count(LinkCounter::kRxDroppedTooBig) == 2);
  CHECK(pair->count(LinkCounter::kRxPackets) == 6);
  CHECK(pair->count(LinkCounter::kLinkEnded) == 0);
}

// Without frames packets are read all the same, and dropped: the descriptor must not stay ready.
void pool_empty() {
  Pair pair(SOCK_SEQPACKET, 0, 32, 1);
  std::vector<IncomingPacket> packets(Link::kBatch);
  size_t held = 0;
  for (size_t i = 0; i < 100; ++i) {
    pair.put(packet_of(100));
    held += pair->link().receive(packets);
  }
  CHECK(held == 32);
  pair.put(packet_of(3000));
  CHECK(pair->link().receive(packets) == 0);
  CHECK(pair->frames_in_use() == 32);
  CHECK(pair->count(LinkCounter::kRxDroppedPoolEmpty) == 69);
}

void sends(int type, size_t header_bytes) {
  Pair pair(type, header_bytes);
  for (const size_t length : {28u, 1500u, 65'535u}) {
    const Bytes packet = packet_of(length);
    CHECK(pair->send(packet) == LinkCounter::kTxPackets);
    Bytes expected = framed(header_bytes, packet);
    if (header_bytes == 12) expected[10] = 1;
    CHECK(pair.get() == expected);
  }
  const Bytes packet = packet_of(2028);
  const Offload super = {kPartial, GsoKind::kUdp, 200};
  if (header_bytes == 0) {
    CHECK(!pair->link().features().checksum && !pair->link().features().udp_gso);
    CHECK(pair->send(packet, super) == LinkCounter::kTxDroppedRefused);
    CHECK(pair->send(packet, {kPartial}) == LinkCounter::kTxDroppedRefused);
    return;
  }
  CHECK(pair->link().features().checksum && pair->link().features().udp_gso);
  CHECK(pair->send(packet, super) == LinkCounter::kTxPackets);
  Bytes header = {1, 5, 28, 0, 200, 0, 20, 0, 6, 0};
  if (header_bytes == 12) header.insert(header.end(), {1, 0});
  CHECK(pair.get() == concat(header, packet));
  CHECK(pair->send(packet, {kPartial, GsoKind::kTcp4, 200}) == LinkCounter::kTxDroppedRefused);
}

// A batch with one that cannot be said: the others go, in their order.
void sends_batch() {
  Pair pair(SOCK_SEQPACKET, 10);
  std::vector<Bytes> bytes;
  for (size_t i = 0; i < 100; ++i) bytes.push_back(packet_of(100 + i));
  std::vector<OutgoingPacket> packets(bytes.size());
  for (size_t i = 0; i < bytes.size(); ++i) packets[i].bytes = bytes[i];
  packets[7].offload = {kPartial, GsoKind::kTcp6, 10};
  pair->link().send(packets);
  for (size_t i = 0; i < bytes.size(); ++i) {
    CHECK(packets[i].result == (i == 7 ? LinkCounter::kTxDroppedRefused : LinkCounter::kTxPackets));
    if (i != 7) CHECK(pair.get() == framed(10, bytes[i]));
  }
}

void full_peer(int type) {
  Pair pair(type);
  const Bytes packet = packet_of(1400);
  std::vector<OutgoingPacket> packets(Link::kBatch);
  size_t taken = 0;
  size_t full = 0;
  for (size_t round = 0; round < 100; ++round) {
    for (OutgoingPacket& one : packets) one = {packet, {}, LinkCounter::kTxDroppedNoRoute};
    pair->link().send(packets);
    for (const OutgoingPacket& one : packets) {
      CHECK(one.result == LinkCounter::kTxPackets || one.result == LinkCounter::kTxDroppedLinkFull);
      (one.result == LinkCounter::kTxPackets ? taken : full) += 1;
    }
  }
  CHECK(taken > 0 && full > 0);
  for (size_t i = 0; i < taken; ++i) CHECK(pair.get() == packet);
  // There is room again.
  CHECK(pair->send(packet) == LinkCounter::kTxPackets);
  CHECK(pair.get() == packet);
  CHECK(pair->count(LinkCounter::kLinkEnded) == 0);
}

bool never_ready(Link& link) {
  std::vector<pollfd> polled(link.poll_set().begin(), link.poll_set().end());
  return ::poll(polled.data(), polled.size(), 0) == 0;
}

void closed_peer() {
  Pair pair(SOCK_SEQPACKET, 10);
  const Bytes last = framed(10, packet_of(100));
  pair.put(last);
  pair.peer.reset();
  CHECK(pair->receive_all(1)[0].bytes == packet_of(100));
  CHECK(pair->receive().empty());
  CHECK(pair->count(LinkCounter::kLinkEnded) == 1);
  CHECK(never_ready(pair->link()));
  CHECK(pair->receive().empty());
  CHECK(pair->send(packet_of(100)) == LinkCounter::kTxDroppedLinkEnded);
  CHECK(pair->count(LinkCounter::kLinkEnded) == 1);
}

void closed_peer_of_datagrams() {
  Pair pair(SOCK_DGRAM);
  pair.peer.reset();
  CHECK(pair->receive().empty());
  CHECK(pair->send(packet_of(100)) == LinkCounter::kTxDroppedLinkEnded);
  CHECK(pair->count(LinkCounter::kLinkEnded) == 1);
  CHECK(never_ready(pair->link()));
}

// The user's descriptor outlives the link's, and the pair with it.
void keeps_the_users_descriptor() {
  Pair pair(SOCK_SEQPACKET);
  CHECK((::fcntl(pair.ours.get(), F_GETFL) & O_NONBLOCK) != 0);
  pair->link().close();
  pair->link().close();
  CHECK(pair->receive().empty());
  CHECK(never_ready(pair->link()));
  CHECK(pair->count(LinkCounter::kLinkEnded) == 0);
  pair.put(packet_of(100));
  Bytes bytes(200);
  CHECK(::recv(pair.ours.get(), bytes.data(), bytes.size(), 0) == 100);
}

// `close` comes from another thread than everything else, in the midst of it.
void closed_by_another_thread() {
  for (int round = 0; round < 20; ++round) {
    Pair pair(SOCK_SEQPACKET, 10);
    const Bytes packet = packet_of(100);
    std::atomic<int> turns = 0;
    std::thread native([&] {
      // Without an end of its own: the link's being closed ends it.
      while (pair->send(packet) != LinkCounter::kTxDroppedLinkEnded) {
        (void)pair->receive();
        ++turns;
        pair.get();
      }
    });
    while (turns < round) std::this_thread::yield();
    pair->link().close();
    native.join();
    CHECK(pair->receive().empty());
    CHECK(pair->count(LinkCounter::kLinkEnded) == 0);
  }
}

void refuses_descriptors() {
  const auto refused = [](int fd, int error, const char* step, size_t header_bytes = 0) {
    const OpenedLink opened = open_link_on(fd, header_bytes);
    CHECK(opened.queues.empty() && opened.error == error && opened.step == step);
  };
  refused(987'654, EBADF, "fcntl(F_DUPFD_CLOEXEC)");
  int fds[2];
  CHECK(::pipe2(fds, O_CLOEXEC) == 0);
  const UniqueFd read_end(fds[0]);
  const UniqueFd write_end(fds[1]);
  refused(fds[0], ENOTSOCK, "kind of descriptor");
  const UniqueFd stream(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  refused(stream.get(), EPROTOTYPE, "type of socket");
  const UniqueFd datagrams(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  refused(datagrams.get(), EINVAL, "vnetHeaderBytes", 11);
  CHECK((::fcntl(datagrams.get(), F_GETFL) & O_NONBLOCK) == 0);
}

}  // namespace

int main() {
  for (const int type : {SOCK_SEQPACKET, SOCK_DGRAM}) {
    for (const size_t header_bytes : {0u, 10u, 12u}) {
      receives(type, header_bytes);
      sends(type, header_bytes);
    }
    full_peer(type);
  }
  receives_offloads();
  drops();
  pool_empty();
  sends_batch();
  closed_peer();
  closed_peer_of_datagrams();
  keeps_the_users_descriptor();
  closed_by_another_thread();
  refuses_descriptors();
  return 0;
}
