// The packet link's way out: next hop, headers, and as few system calls as there can be.
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "links/packet_link.h"
#include "util/clock.h"

namespace apo {
namespace {

constexpr size_t kVirtio = wire::kVirtioNetHeaderBytes;
// A full device is waited for once a batch; then its packets are dropped, or ours would pile up.
constexpr int kRoomMs = 2;

bool is_down(int error) { return error == ENETDOWN || error == ENXIO || error == ENODEV; }
// Empty: this is no IP packet.
std::span<const uint8_t> destination_of(std::span<const uint8_t> packet) {
  const bool six = !packet.empty() && packet[0] >> 4 == 6;
  const size_t at = six ? wire::ipv6_field::kDestination : wire::ipv4_field::kDestination;
  const size_t bytes = six ? 16 : 4;
  if (packet.size() < at + bytes) return {};
  return packet.subspan(at, bytes);
}
bool is_full(int error) { return error == EAGAIN || error == ENOBUFS || error == ENOMEM; }

}  // namespace

void PacketLink::count(LinkCounter counter, uint64_t amount) {
  context_->counters.add(counter, amount);
}

bool PacketLink::prepare(const MacAddress& to, std::span<const uint8_t> packet,
                         const Offload& offload, std::array<uint8_t, kHeaderBytes>& headers) {
  const std::span<uint8_t> virtio(headers.data(), kVirtio);
  if (offload.checksum_state == ChecksumState::kPartial) {
    if (!wire::write_virtio_header(virtio, packet, offload)) return false;
    // It counts from the Ethernet header on.
    for (const size_t field :
         {wire::virtio_net_field::kHeaderBytes, wire::virtio_net_field::kChecksumStart}) {
      wire::store16_little(&headers[field],
                           wire::load16_little(&headers[field]) + EthernetView::kHeaderBytes);
    }
  } else {
    std::memset(virtio.data(), 0, kVirtio);
  }
  write_ethernet_header(headers.data() + kVirtio, to, shared_->mac,
                        packet[0] >> 4 == 6 ? ethertype::kIpv6 : ethertype::kIpv4);
  return true;
}

void PacketLink::send(std::span<OutgoingPacket> packets) {
  waited_ = false;
  while (!packets.empty()) {
    const auto batch = packets.first(std::min(packets.size(), kBatch));
    packets = packets.subspan(batch.size());
    transmit(route(batch));
  }
}

// How many of the batch are ready to go out.
size_t PacketLink::route(std::span<OutgoingPacket> packets) {
  const uint64_t now_us = clock_us();
  const std::lock_guard lock(shared_->mutex);
  size_t ready = 0;
  MacAddress mac;
  std::span<const uint8_t> known;  // the destination that `mac` is for
  for (OutgoingPacket& packet : packets) {
    const std::span<const uint8_t> destination = destination_of(packet.bytes);
    if (known.empty() || !std::ranges::equal(destination, known)) {
      const Neighbours::Answer answer =
          shared_->station->route(packet.bytes, packet.offload, now_us, *this);
      packet.result = answer.result;
      if (answer.mac == nullptr) continue;
      mac = *answer.mac;
      known = destination;
    }
    if (!prepare(mac, packet.bytes, packet.offload, headers_[ready])) {
      packet.result = LinkCounter::kTxDroppedRefused;
      continue;
    }
    pieces_[ready][0] = {headers_[ready].data(), kHeaderBytes};
    pieces_[ready][1] = {const_cast<uint8_t*>(packet.bytes.data()), packet.bytes.size()};
    sent_[ready].msg_hdr.msg_iov = pieces_[ready].data();
    sent_[ready].msg_hdr.msg_iovlen = 2;
    routed_[ready++] = &packet;
  }
  shared_->publish();
  return ready;
}

void PacketLink::transmit(size_t count) {
  size_t done = 0;
  while (done < count) {
    const int result = ::sendmmsg(sockets_.sender.get(), &sent_[done],
                                  static_cast<unsigned>(count - done), MSG_DONTWAIT);
    if (result > 0) {
      for (int i = 0; i < result; ++i) routed_[done++]->result = LinkCounter::kTxPackets;
      continue;
    }
    const int error = result == 0 ? EAGAIN : errno;
    if (error == EINTR) continue;
    if (is_full(error) && wait_for_room()) continue;
    if (is_down(error)) {
      while (done < count) routed_[done++]->result = LinkCounter::kTxDroppedLinkDown;
      return;
    }
    routed_[done++]->result = failure(error);
  }
}

LinkCounter PacketLink::failure(int error) {
  if (is_down(error)) return LinkCounter::kTxDroppedLinkDown;
  if (is_full(error)) return LinkCounter::kTxDroppedLinkFull;
  return error == EMSGSIZE ? LinkCounter::kTxDroppedTooBig : LinkCounter::kTxDroppedRefused;
}

bool PacketLink::wait_for_room() {
  if (waited_) return false;
  waited_ = true;
  pollfd sender{sockets_.sender.get(), POLLOUT, 0};
  return ::poll(&sender, 1, kRoomMs) > 0;
}

void PacketLink::send_frame(std::span<const uint8_t> frame) {
  std::array<uint8_t, kVirtio> virtio{};
  iovec pieces[] = {{virtio.data(), kVirtio}, {const_cast<uint8_t*>(frame.data()), frame.size()}};
  msghdr message{};
  message.msg_iov = pieces;
  message.msg_iovlen = 2;
  // A question or an answer that does not get out is asked again.
  (void)::sendmsg(sockets_.sender.get(), &message, MSG_DONTWAIT);
}

void PacketLink::send_packet(const MacAddress& to, std::span<const uint8_t> packet,
                             const Offload& offload) {
  std::array<uint8_t, kHeaderBytes> headers;
  if (!prepare(to, packet, offload, headers)) {
    count(LinkCounter::kNeighbourDroppedLink, 1);
    return;
  }
  iovec pieces[] = {{headers.data(), kHeaderBytes},
                    {const_cast<uint8_t*>(packet.data()), packet.size()}};
  msghdr message{};
  message.msg_iov = pieces;
  message.msg_iovlen = 2;
  const bool sent = ::sendmsg(sockets_.sender.get(), &message, MSG_DONTWAIT) >= 0;
  count(sent ? LinkCounter::kNeighbourReleased : LinkCounter::kNeighbourDroppedLink, 1);
}

}  // namespace apo
