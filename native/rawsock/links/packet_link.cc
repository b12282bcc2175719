// See packet_link.h. Here: life, receiving and the change between the two ways; sending is in
// packet_link_send.cc, opening in packet_link_open.cc.
#include "links/packet_link.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "util/clock.h"

namespace apo {
namespace {

// A block with frames in it retires within two of its timer's ticks, which kernels before 6.18 round
// up to a jiffy of up to 4 ms.
constexpr uint64_t kRingDrainsUs = 10'000;
constexpr uint64_t kCountDropsUs = 100'000;
constexpr uint64_t kCheckUs = 200'000;
constexpr size_t kOverflowBytes = 65'536;

constexpr size_t kVirtio = wire::kVirtioNetHeaderBytes;

// The header counts from the Ethernet header on, an Offload from the IP header on.
std::optional<Offload> read_offload(const uint8_t* header, std::span<const uint8_t> packet) {
  std::array<uint8_t, kVirtio> moved;
  std::memcpy(moved.data(), header, kVirtio);
  // Nothing said: the common case.
  if (moved[0] == 0 && moved[1] == 0) return Offload{};
  for (const size_t field :
       {wire::virtio_net_field::kHeaderBytes, wire::virtio_net_field::kChecksumStart}) {
    const size_t from_frame = wire::load16_little(&moved[field]);
    wire::store16_little(&moved[field],
                         from_frame - std::min(from_frame, EthernetView::kHeaderBytes));
  }
  return wire::read_virtio_header(moved, packet);
}

}  // namespace

PacketLink::PacketLink(std::shared_ptr<PacketStation> shared, uint32_t queue, uint64_t ring_above)
    : shared_(std::move(shared)),
      queue_(queue),
      sockets_(*shared_->sockets[queue]),
      policy_(ring_above) {
  polled_[0] = {sockets_.plain.get(), POLLIN, 0};
  polled_[1] = {sockets_.ringed.get(), POLLIN, 0};
}

int PacketLink::start(const LinkContext& context) {
  context_ = context;
  slots_.resize(kBatch);
  received_.resize(kBatch);
  overflow_ = std::make_unique_for_overwrite<uint8_t[]>(kOverflowBytes * kBatch);
  if (const int error = sockets_.accept(frame_filter(shared_->mac))) return error;
  if (queue_ == 0) {
    const std::lock_guard lock(shared_->mutex);
    shared_->station->start(clock_us(), *this);
    shared_->publish();
  }
  return 0;
}

void PacketLink::close() {
  if (closed_.exchange(true)) return;
  (void)sockets_.accept(closed_filter());
}

int PacketLink::join_group(const IpAddress& group, const IpAddress* /*source*/) {
  const int fd = shared_->sockets.front()->sender.get();
  return apo::join_group(fd, shared_->device.index, PACKET_MR_MULTICAST, multicast_mac(group));
}

void PacketLink::leave_group(const IpAddress& group, const IpAddress* /*source*/) {
  const int fd = shared_->sockets.front()->sender.get();
  apo::leave_group(fd, shared_->device.index, PACKET_MR_MULTICAST, multicast_mac(group));
}

LinkFeatures PacketLink::features() const {
  // Without the bypass the kernel cuts what the device cannot.
  const InterfaceOffloads& offloads = shared_->device.offloads;
  return {.checksum = true, .tcp_gso = true, .udp_gso = offloads.udp || !offloads.tcp};
}

size_t PacketLink::receive(std::span<IncomingPacket> packets) {
  size_t taken = 0;
  if (way_ == Way::kPlain) {
    taken = receive_plain(packets);
  } else if (way_ == Way::kRing) {
    taken = receive_ring(packets);
    // Nothing should come here; what does (an interface that went down says so here) is not left.
    if (taken == 0) taken = receive_plain(packets);
  } else {
    taken = receive_between(packets);
  }
  if (taken > 0) judge(taken, packets);
  return taken;
}

size_t PacketLink::receive_between(std::span<IncomingPacket> packets) {
  if (way_ == Way::kToRing) {
    // A block that is ready holds frames younger than all of the plain socket's: those come first.
    const bool ready = sockets_.ring.ready();
    const size_t taken = receive_plain(packets);
    if (taken > 0 || !plain_drained_) return taken;
    if (shared_->fanout->has_failed()) {
      turn(Way::kPlain, clock_us());
    } else if (ready) {
      turn(Way::kRing, clock_us());
      return receive_ring(packets);
    }
    return 0;
  }
  const size_t taken = receive_ring(packets);
  if (taken > 0) return taken;
  const uint64_t now_us = clock_us();
  if (turned_us_ == 0) {
    // From the first frame on that took the new way, the ring gets no more.
    pollfd plain = polled_[0];
    if (::poll(&plain, 1, 0) > 0 || shared_->fanout->is_settled(queue_, false)) {
      turned_us_ = now_us;
    }
  } else if (now_us - turned_us_ > kRingDrainsUs) {
    turn(Way::kPlain, now_us);
    return receive_plain(packets);
  }
  return 0;
}

// A call that took packets says how much, so that the policy sees the load; its window also ends by
// the clock, in `prepare_sleep`.
void PacketLink::judge(size_t taken, std::span<const IncomingPacket> packets) {
  size_t bytes = 0;
  for (const IncomingPacket& packet : packets.first(taken)) bytes += packet.length;
  const uint64_t now_us = clock_us();
  count_drops(now_us);
  if (way_ != Way::kPlain && way_ != Way::kRing) return;
  if (!policy_.add(now_us, taken, bytes)) return;
  const bool ring = way_ == Way::kPlain;
  if (shared_->fanout->request(queue_, ring)) turn(ring ? Way::kToRing : Way::kToPlain, now_us);
}

void PacketLink::turn(Way way, uint64_t now_us) {
  way_ = way;
  turned_us_ = 0;
  if (way == Way::kRing) ++ring_turns_;
  if (way == Way::kPlain || way == Way::kRing) policy_.changed(now_us, way == Way::kRing);
}

uint64_t PacketLink::deadline_us() const {
  const uint64_t station_us = shared_->deadline_us.load(std::memory_order_relaxed);
  return std::min({station_us, check_us_, idle_ring_us_});
}

void PacketLink::tick(uint64_t now_us) {
  if (idle_ring_us_ <= now_us) idle_ring_us_ = kNever;  // `prepare_sleep` looks at the load again
  const std::lock_guard lock(shared_->mutex);
  if (check_us_ <= now_us) {
    check_us_ = now_us + kCheckUs;
    if (shared_->device.is_up()) {
      check_us_ = kNever;
      shared_->station->start(now_us, *this);
    }
  }
  shared_->station->tick(now_us, *this);
  shared_->publish();
}

bool PacketLink::prepare_sleep() {
  if (sockets_.ring.ready()) return false;
  // An error that stands on the ring's socket would wake us for ever.
  int error = 0;
  socklen_t bytes = sizeof(error);
  (void)::getsockopt(sockets_.ringed.get(), SOL_SOCKET, SO_ERROR, &error, &bytes);
  const uint64_t now_us = clock_us();
  count_drops(now_us);
  idle_ring_us_ = kNever;
  if (way_ == Way::kRing) {
    idle_ring_us_ = now_us + ReceivePolicy::kWindowUs;
    if (policy_.add(now_us, 0, 0) && shared_->fanout->request(queue_, false)) {
      turn(Way::kToPlain, now_us);
    }
  }
  // While changing over, a frame may wait where nobody looks yet: looking again is all there is.
  return way_ == Way::kPlain || way_ == Way::kRing;
}

void PacketLink::count_drops(uint64_t now_us) {
  if (now_us - drops_counted_us_ < kCountDropsUs) return;
  drops_counted_us_ = now_us;
  const uint64_t drops = sockets_.take_drops();
  if (drops == 0) return;
  context_->counters.add(LinkCounter::kRxPackets, drops);
  context_->counters.add(LinkCounter::kRxDroppedRingFull, drops);
}

bool PacketLink::is_packet(const EthernetView& frame, std::span<const uint8_t> payload) {
  const uint16_t type = frame.type();
  if (type == ethertype::kIpv4) return true;
  const bool discovery = type == ethertype::kIpv6 && NdpMessage::recognise(payload);
  if (type == ethertype::kIpv6 && !discovery) return true;
  if (!discovery && type != ethertype::kArp) {
    (void)context_->drop(LinkCounter::kRxDroppedFrame);
    return false;
  }
  const std::lock_guard lock(shared_->mutex);
  (void)shared_->station->input(type, frame.source(), payload, clock_us(), *this);
  shared_->publish();
  return false;
}

size_t PacketLink::receive_ring(std::span<IncomingPacket> packets) {
  size_t taken = 0;
  RingFrame frame;
  while (taken < packets.size() && sockets_.ring.next(frame)) {
    if (take_frame(frame, packets[taken])) ++taken;
  }
  sockets_.ring.release();
  return taken;
}

bool PacketLink::take_frame(const RingFrame& frame, IncomingPacket& packet) {
  const auto ethernet = EthernetView::parse({frame.bytes, frame.length});
  if (!ethernet || !frame.whole) {
    (void)context_->drop(LinkCounter::kRxDroppedFrame);
    return false;
  }
  const std::span<const uint8_t> payload = ethernet->payload();
  if (!is_packet(*ethernet, payload)) return false;
  const std::optional<Offload> offload = read_offload(frame.header, payload);
  if (!offload) {
    (void)context_->drop(LinkCounter::kRxDroppedVnetHeader);
    return false;
  }
  const IncomingFrame room = context_->take_frame(payload.size());
  if (room.frame == 0) return false;
  std::memcpy(room.bytes, payload.data(), payload.size());
  packet = {room.frame, room.offset, static_cast<uint32_t>(payload.size()), *offload};
  return true;
}

void PacketLink::arm(Slot& slot) {
  constexpr size_t kSmall = LinkContext::kSmallPacketBytes;
  slot.frame = large_expected_ ? context_->pool.allocate(true) : 0;
  slot.large = slot.frame != 0;
  if (!slot.large) slot.frame = context_->pool.allocate(false);
  const size_t index = static_cast<size_t>(&slot - slots_.data());
  uint8_t* overflow = overflow_.get() + index * kOverflowBytes;
  slot.pieces[0] = {slot.headers.data(), kHeaderBytes};
  if (slot.large) {
    slot.pieces[1] = {context_->pool.own_frame(slot.frame), FramePool::kLargeBytes};
    slot.pieces[2] = {overflow, 0};
  } else {
    // Without a frame it is read nowhere and will be counted.
    slot.pieces[1] = {slot.frame == 0
                          ? overflow
                          : context_->pool.own_frame(slot.frame) + LinkContext::kHeadroomBytes,
                      kSmall};
    slot.pieces[2] = {overflow + kSmall, kOverflowBytes - kSmall};
  }
  mmsghdr& message = received_[index];
  message = {};
  message.msg_hdr.msg_iov = slot.pieces.data();
  message.msg_hdr.msg_iovlen = slot.pieces.size();
}

size_t PacketLink::receive_plain(std::span<IncomingPacket> packets) {
  const size_t most = large_expected_ ? kLargeBatch : packets.size();
  const size_t wanted = std::min(most, expected_);
  for (size_t i = 0; i < wanted; ++i) arm(slots_[i]);
  const int result = ::recvmmsg(sockets_.plain.get(), received_.data(),
                                static_cast<unsigned>(wanted), MSG_DONTWAIT, nullptr);
  if (result < 0 && (errno == ENETDOWN || errno == ENXIO || errno == ENODEV)) went_down();
  const size_t got = result < 0 ? 0 : static_cast<size_t>(result);
  expected_ = got == wanted ? std::min(kBatch, 2 * expected_) : std::max<size_t>(4, got);
  size_t taken = 0;
  size_t bytes = 0;
  for (size_t i = 0; i < wanted; ++i) {
    Slot& slot = slots_[i];
    if (i < got) bytes += received_[i].msg_len;
    const bool whole = i < got && (received_[i].msg_hdr.msg_flags & MSG_TRUNC) == 0;
    if (i < got && take_slot(slot, received_[i].msg_len, whole, packets[taken])) ++taken;
    if (slot.frame != 0) context_->pool.release(slot.frame);
  }
  if (got > 0) large_expected_ = bytes > got * kLargeMeanBytes;
  plain_drained_ = got < wanted;
  return taken;
}

bool PacketLink::take_slot(Slot& slot, size_t length, bool whole, IncomingPacket& packet) {
  constexpr size_t kSmall = LinkContext::kSmallPacketBytes;
  const auto ethernet =
      EthernetView::parse(std::span<const uint8_t>(slot.headers).subspan(kVirtio));
  if (length < kHeaderBytes || !whole || !ethernet) {
    (void)context_->drop(LinkCounter::kRxDroppedFrame);
    return false;
  }
  const size_t bytes = length - kHeaderBytes;
  // One piece again: the room of a small frame is followed by nothing of ours, so a longer one is put
  // together in a large frame; and a short one does not keep a large frame.
  uint32_t frame = slot.frame;
  uint32_t offset = slot.large ? 0 : LinkContext::kHeadroomBytes;
  const auto* start = static_cast<const uint8_t*>(slot.pieces[1].iov_base);
  if (frame == 0 || (bytes > kSmall) != slot.large) {
    const IncomingFrame room = context_->take_frame(bytes);
    if (room.frame == 0) return false;
    std::memcpy(room.bytes, start, std::min(bytes, kSmall));
    if (bytes > kSmall) std::memcpy(room.bytes + kSmall, slot.pieces[2].iov_base, bytes - kSmall);
    frame = room.frame;
    offset = room.offset;
    start = room.bytes;
  }
  const auto give_back = [&] {
    if (frame != slot.frame) context_->pool.release(frame);
  };
  const std::span<const uint8_t> payload(start, bytes);
  if (!is_packet(*ethernet, payload)) {
    give_back();
    return false;
  }
  const std::optional<Offload> offload = read_offload(slot.headers.data(), payload);
  if (!offload) {
    give_back();
    (void)context_->drop(LinkCounter::kRxDroppedVnetHeader);
    return false;
  }
  packet = {frame, offset, static_cast<uint32_t>(bytes), *offload};
  if (frame == slot.frame) slot.frame = 0;
  return true;
}

// The kernel tells each socket once a time that the interface goes down; one queue counts it.
void PacketLink::went_down() {
  if (queue_ != 0) return;
  context_->counters.add(LinkCounter::kLinkDowns);
  check_us_ = clock_us() + kCheckUs;
}

}  // namespace apo
