// The `packet` link: a station of our own on a real Ethernet interface, beside the kernel's, through
// AF_PACKET sockets (packet(7)). ethernet/ answers and asks for hardware addresses.
//
// Frames come through a plain socket while there are few, and through a TPACKET_V3 ring while there
// are many (receive_policy.h says why); the fan-out group changes over between two frames, so that
// none is lost, doubled or overtaken. Each is copied once, into its pool frame. They go out by
// sendmmsg, straight from the workers' frames.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "ethernet/station.h"
#include "links/link.h"
#include "links/link_kinds.h"
#include "links/packet_fanout.h"
#include "links/packet_sockets.h"
#include "links/receive_policy.h"
#include "wire/virtio_net_header.h"

namespace apo {

// What the queues of one packet link share. The station is under the mutex, which is taken once a
// batch.
struct PacketStation {
  PacketInterface device;
  MacAddress mac;
  std::mutex mutex;
  std::optional<Station> station;
  std::vector<std::unique_ptr<PacketSockets>> sockets;  // one a queue
  std::unique_ptr<PacketFanout> fanout;                 // ends before the sockets
  std::atomic<uint64_t> deadline_us = Link::kNever;
  std::atomic<size_t> mtu = 1500;

  // After the station has been spoken to, under the mutex.
  void publish() {
    deadline_us.store(station->deadline_us(), std::memory_order_relaxed);
    mtu.store(station->mtu(), std::memory_order_relaxed);
  }
};

class PacketLink final : public Link, private StationOutput {
 public:
  PacketLink(std::shared_ptr<PacketStation> shared, uint32_t queue, uint64_t ring_above);
  ~PacketLink() override { close(); }

  [[nodiscard]] int start(const LinkContext& context) override;
  [[nodiscard]] size_t mtu() const override { return shared_->mtu.load(std::memory_order_relaxed); }
  [[nodiscard]] LinkFeatures features() const override;
  [[nodiscard]] size_t receive(std::span<IncomingPacket> packets) override;
  void send(std::span<OutgoingPacket> packets) override;
  [[nodiscard]] uint64_t deadline_us() const override;
  void tick(uint64_t now_us) override;
  [[nodiscard]] bool prepare_sleep() override;
  [[nodiscard]] std::span<const pollfd> poll_set() override { return polled_; }
  // The kernel counts what each socket has joined.
  [[nodiscard]] int join_group(const IpAddress& group, const IpAddress* source) override;
  void leave_group(const IpAddress& group, const IpAddress* source) override;
  void close() override;

  // It has changed over to its ring, by now so many times.
  [[nodiscard]] uint64_t ring_turns() const { return ring_turns_; }

 private:
  // Where this queue's frames come from; the two between wait until none is on the old way.
  enum class Way : uint8_t { kPlain, kToRing, kRing, kToPlain };

  static constexpr size_t kHeaderBytes = wire::kVirtioNetHeaderBytes + EthernetView::kHeaderBytes;
  // Packets that are longer than this on average are read into large frames at once: to put them together
  // afterwards costs more than the room that a short one among them wastes.
  static constexpr size_t kLargeMeanBytes = 8192;
  static constexpr size_t kLargeBatch = 32;
  // A frame that a plain socket has, read past its headers straight into a pool frame.
  struct Slot {
    uint32_t frame = 0;
    bool large = false;
    std::array<uint8_t, kHeaderBytes> headers;
    std::array<iovec, 3> pieces;
  };

  // StationOutput: at once, one frame a system call. Under the mutex.
  void send_frame(std::span<const uint8_t> frame) override;
  void send_packet(const MacAddress& to, std::span<const uint8_t> packet,
                   const Offload& offload) override;
  void count(LinkCounter counter, uint64_t amount) override;

  [[nodiscard]] size_t receive_plain(std::span<IncomingPacket> packets);
  [[nodiscard]] size_t receive_ring(std::span<IncomingPacket> packets);
  [[nodiscard]] size_t receive_between(std::span<IncomingPacket> packets);
  void arm(Slot& slot);
  [[nodiscard]] bool take_slot(Slot& slot, size_t length, bool whole, IncomingPacket& packet);
  [[nodiscard]] bool take_frame(const RingFrame& frame, IncomingPacket& packet);
  // What is not an IP packet for the thread: dealt with, or dropped and counted.
  [[nodiscard]] bool is_packet(const EthernetView& frame, std::span<const uint8_t> payload);
  void judge(size_t taken, std::span<const IncomingPacket> packets);
  void turn(Way way, uint64_t now_us);
  void count_drops(uint64_t now_us);

  // `pieces` as they are to be sent; false: refused.
  [[nodiscard]] bool prepare(const MacAddress& to, std::span<const uint8_t> packet,
                             const Offload& offload, std::array<uint8_t, kHeaderBytes>& headers);
  [[nodiscard]] size_t route(std::span<OutgoingPacket> packets);
  void transmit(size_t count);
  [[nodiscard]] LinkCounter failure(int error);
  [[nodiscard]] bool wait_for_room();
  void went_down();

  const std::shared_ptr<PacketStation> shared_;
  const uint32_t queue_;
  PacketSockets& sockets_;
  std::array<pollfd, 2> polled_{};
  std::optional<LinkContext> context_;
  std::atomic<bool> closed_ = false;

  Way way_ = Way::kPlain;
  ReceivePolicy policy_;
  uint64_t ring_turns_ = 0;
  uint64_t turned_us_ = 0;          // since when it waits, on the way back from the ring
  bool plain_drained_ = true;       // the last look at the plain socket took all that it had
  uint64_t idle_ring_us_ = kNever;  // when to look at the load again, on the ring
  uint64_t drops_counted_us_ = 0;
  uint64_t check_us_ = kNever;  // while the interface is down: when to look again

  std::vector<Slot> slots_;
  std::vector<mmsghdr> received_;
  std::unique_ptr<uint8_t[]> overflow_;  // what of a super-packet a small frame has no room for
  size_t expected_ = 4;                  // frames of the next batch, likely
  bool large_expected_ = false;          // and that they are long

  std::array<std::array<uint8_t, kHeaderBytes>, kBatch> headers_;
  std::array<std::array<iovec, 2>, kBatch> pieces_;
  std::array<mmsghdr, kBatch> sent_{};
  std::array<OutgoingPacket*, kBatch> routed_{};
  bool waited_ = false;  // for room, in the send call that is running
};

// Kind "packet". Settings: `interface`, `mac` ("", "interface" or an address), `queues`, `mtu`, and
// `ringAbove`, a load in receive_policy.h's measure; the addresses and routes of all links.
[[nodiscard]] OpenedLink open_packet_link(const LinkSettings& settings);

}  // namespace apo
