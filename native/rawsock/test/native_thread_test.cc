// Two native threads on one wire, each with one worker played by a thread of this program: packets
// both ways, every one accounted for, frames all back; then workers and threads that come and go.
// For the sanitizers above all.
#include <thread>

#include "check.h"
#include "links/mem_wire.h"
#include "packet_builder.h"
#include "shared_memory.h"
#include "thread/native_thread.h"
#include "wire/udp.h"

namespace {

using namespace apo;
using namespace apo::test;

constexpr uint32_t kNativePartition = 1;

// Everything that one runtime shares.
struct Runtime {
  std::vector<uint32_t> pool_words = pool_memory(2, 256, 4);
  std::vector<uint32_t> receive_words = ring_memory(128);
  std::vector<uint32_t> transmit_words = ring_memory(128);
  std::vector<uint32_t> ports = std::vector<uint32_t>(kPortBitmapWords);
  std::vector<uint32_t> tcp_ports = std::vector<uint32_t>(kPortBitmapWords);
  std::vector<uint32_t> owners = std::vector<uint32_t>(kShards, 1);
  std::vector<uint64_t> cells = std::vector<uint64_t>(kLinkCounters);
  uint32_t native_bell = 0;
  uint32_t worker_bell = 0;
  IpAddress address;
  std::unique_ptr<NativeThread> thread;

  Runtime(const std::shared_ptr<MemWire>& wire, const uint8_t* ip)
      : address(IpAddress::from_bytes(4, ip)) {
    AddressSet own;
    CHECK(own.add({{address, 24}}));
    IpAddress taken;
    const Doorbell bell(&native_bell);
    auto endpoint = wire->plug_in(own, &taken);
    CHECK(endpoint != nullptr);
    CHECK(wire->plug_in(own, &taken) == nullptr && taken == address);
    const NativeThreadOptions options{own,
                                      {1, 2},
                                      *FramePool::attach(pool_words, kNativePartition),
                                      LinkCounters(std::span<uint64_t, kLinkCounters>(cells)),
                                      bell,
                                      std::span<uint32_t, kShards>(owners),
                                      nullptr,
                                      nullptr};
    thread = std::make_unique<NativeThread>(options, endpoint);
    CHECK(thread->start() == 0);
  }
  [[nodiscard]] WorkerPort port() {
    return {*RingMemory::attach(receive_words), *RingMemory::attach(transmit_words),
            Doorbell(&worker_bell), std::span<uint32_t, kPortBitmapWords>(ports),
            std::span<uint32_t, kPortBitmapWords>(tcp_ports)};
  }
  [[nodiscard]] uint64_t counter(LinkCounter counter) {
    return std::atomic_ref<uint64_t>(cells[static_cast<size_t>(counter)]).load();
  }
  [[nodiscard]] uint64_t sum(LinkCounter from, LinkCounter to) {
    uint64_t all = 0;
    for (auto i = static_cast<size_t>(from); i <= static_cast<size_t>(to); ++i) all += cells[i];
    return all;
  }
  void open_port(uint16_t port) {
    std::atomic_ref<uint32_t>(ports[port / 32]).fetch_or(1u << (port % 32));
  }
};

// A worker that sends `count` datagrams of its own and reads until it has seen `expected` of the
// other's.
void work(Runtime& runtime, const uint8_t* from, const uint8_t* to, uint32_t count,
          uint32_t expected) {
  FramePool pool = *FramePool::attach(runtime.pool_words, 0);
  RingProducer out(*RingMemory::attach(runtime.transmit_words));
  RingConsumer in(*RingMemory::attach(runtime.receive_words));
  const Doorbell native(&runtime.native_bell);
  const Doorbell own(&runtime.worker_bell);
  uint32_t sent = 0;
  uint32_t got = 0;
  while (sent < count || got < expected) {
    // Never more than 64 ahead of the other side: so nothing may be lost.
    while (sent < count && sent < got + 64) {
      const uint32_t ref = out.is_full() ? 0 : pool.allocate(false);
      if (ref == 0) break;
      uint8_t* ip = pool.frame(ref).data() + 64;
      std::memcpy(ip + 12, from, 4);
      std::memcpy(ip + 16, to, 4);
      wire::store16(ip + 20, 7000);
      wire::store16(ip + 22, 7000);
      wire::store32(ip + 28, sent);
      PacketDescriptor packet;
      packet.frame = ref;
      packet.packet_offset = 64;
      packet.upper_offset = 84;
      packet.length = 32;
      packet.protocol = 17;
      CHECK(out.push(packet.encode()));
      ++sent;
    }
    if (out.publish()) native.ring();
    RingSlot slot;
    const uint32_t seen = own.read();
    bool any = false;
    while (in.take(slot)) {
      const PacketDescriptor packet = PacketDescriptor::decode(slot);
      const auto frame = pool.frame(packet.frame);
      CHECK(packet.length == 32 && packet.checksum_state == ChecksumState::kVerified);
      CHECK(packet.hash >> 28 == packet.shard);
      CHECK(wire::load32(frame.data() + packet.upper_offset + 8) == got);
      CHECK(pool.release(packet.frame));
      ++got;
      any = true;
    }
    in.release();
    if (!any && (sent == count || sent >= got + 64) && got < expected) {
      if (in.sleep()) own.wait(seen, -1);
      in.wake();
    }
  }
}

void packets_cross_and_all_are_accounted_for() {
  const auto wire = MemWire::create({});
  Runtime a(wire, kOwn4);
  Runtime b(wire, kPeer4);
  CHECK(wire->endpoints() == 2 && MemWire::find(wire->id()) == wire);
  for (Runtime* runtime : {&a, &b}) {
    runtime->open_port(7000);
    CHECK(runtime->thread->attach_worker(0, runtime->port()));
    CHECK(!runtime->thread->attach_worker(0, runtime->port()));
    CHECK(!runtime->thread->attach_worker(kPlacesMax, runtime->port()));
  }
  constexpr uint32_t kCount = 30'000;
  std::thread other([&] { work(b, kPeer4, kOwn4, kCount, kCount); });
  work(a, kOwn4, kPeer4, kCount, kCount);
  other.join();
  for (Runtime* runtime : {&a, &b}) {
    runtime->thread->stop();
    CHECK(!runtime->thread->detach_worker(0));
    CHECK(runtime->counter(LinkCounter::kTxPackets) == kCount);
    CHECK(runtime->counter(LinkCounter::kRxDelivered) == kCount);
    CHECK(runtime->counter(LinkCounter::kRxPackets) == kCount);
    const FramePool pool = *FramePool::attach(runtime->pool_words, 0);
    CHECK(pool.frames_in_use(0) == 0 && pool.frames_in_use(kNativePartition) == 0);
  }
  CHECK(wire->endpoints() == 0);
}

// Nobody reads at the far end: what does not fit is dropped for a reason, and taken back in the
// end.
void what_does_not_fit_is_counted() {
  const auto wire = MemWire::create({});
  Runtime a(wire, kOwn4);
  a.open_port(2000);
  CHECK(a.thread->attach_worker(0, a.port()));
  constexpr uint32_t kCount = 5000;
  uint32_t accepted = 0;
  const Bytes good = udp(false, 1000, 2000, {1});
  const Bytes closed = udp(false, 1000, 2001, {1});
  for (uint32_t i = 0; i < kCount; ++i) {
    accepted += wire->inject(a.address, i % 10 == 0 ? closed : good) == LinkCounter::kTxPackets;
  }
  CHECK(wire->inject(IpAddress::from_bytes(4, kPeer4), good) == LinkCounter::kTxDroppedNoRoute);
  CHECK(wire->inject(a.address, Bytes(1501)) == LinkCounter::kTxDroppedTooBig);
  CHECK(a.thread->detach_worker(0));
  CHECK(!a.thread->detach_worker(0));
  a.thread->stop();
  CHECK(a.counter(LinkCounter::kRxPackets) == accepted);
  CHECK(a.counter(LinkCounter::kRxDelivered) +
            a.sum(LinkCounter::kRxDroppedHeader, LinkCounter::kRxDroppedClosing) ==
        accepted);
  CHECK(a.counter(LinkCounter::kRxReclaimed) == a.counter(LinkCounter::kRxDelivered));
  CHECK(a.counter(LinkCounter::kRxDelivered) <= 128);
  const FramePool pool = *FramePool::attach(a.pool_words, 0);
  CHECK(pool.frames_in_use(kNativePartition) == 0);
}

void threads_come_and_go() {
  const auto wire = MemWire::create({});
  Runtime still(wire, kPeer4);
  const Bytes packet = udp(false, 1000, 2000, {1});
  std::atomic<bool> stop{false};
  std::thread sender([&] {
    while (!stop.load()) (void)wire->inject(IpAddress::from_bytes(4, kOwn4), packet);
  });
  for (int i = 0; i < 50; ++i) {
    Runtime passing(wire, kOwn4);
    if (i % 2 == 0) CHECK(passing.thread->attach_worker(0, passing.port()));
    if (i % 3 == 0) passing.thread->stop();
  }
  stop.store(true);
  sender.join();
  CHECK(wire->endpoints() == 1);
}

}  // namespace

int main() {
  packets_cross_and_all_are_accounted_for();
  what_does_not_fit_is_counted();
  threads_come_and_go();
  return 0;
}
