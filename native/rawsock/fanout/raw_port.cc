#include "fanout/raw_port.h"

#include <arpa/inet.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "wire/byte_order.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/packet_descriptor.h"
#include "wire/udp.h"

namespace apo {
namespace {

constexpr uint8_t kUdp = 17;
// As workers leave it: room for what a link puts in front.
constexpr size_t kHeadroomBytes = 64;
constexpr size_t kPacketBytesMax = 65'535;

// The endpoint of `size` address bytes as they are in a packet.
std::optional<IpEndpoint> endpoint_of(bool version6, const uint8_t* address, uint16_t port) {
  sockaddr_storage storage{};
  if (!version6) {
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    std::memcpy(&v4.sin_addr, address, 4);
    std::memcpy(&storage, &v4, sizeof v4);
    return IpEndpoint::from(storage, sizeof v4);
  }
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(port);
  std::memcpy(&v6.sin6_addr, address, 16);
  std::memcpy(&storage, &v6, sizeof v6);
  return IpEndpoint::from(storage, sizeof v6);
}

const uint8_t* address_of(const IpEndpoint& endpoint) {
  if (endpoint.is_v6()) {
    return reinterpret_cast<const sockaddr_in6*>(endpoint.raw())->sin6_addr.s6_addr;
  }
  return reinterpret_cast<const uint8_t*>(
      &reinterpret_cast<const sockaddr_in*>(endpoint.raw())->sin_addr);
}

}  // namespace

RawPort::RawPort(const RawPortOptions& options)
    : transmit_(options.transmit),
      pool_(options.pool),
      udp_ports_(options.udp_ports),
      link_(options.link),
      addresses_(options.addresses) {
  for (const RingMemory& memory : options.receive) receive_.emplace_back(memory);
}

void RawPort::mark(uint16_t port, bool open) {
  const std::atomic_ref<uint32_t> word(udp_ports_[port / 32]);
  const uint32_t bit = 1u << (port % 32);
  if (open) {
    word.fetch_or(bit, std::memory_order_relaxed);
  } else {
    word.fetch_and(~bit, std::memory_order_relaxed);
  }
}

std::optional<RawPort::Message> RawPort::receive() {
  for (size_t looked = 0; looked < receive_.size();) {
    RingSlot slot;
    if (!receive_[next_].take(slot)) {
      next_ = (next_ + 1) % receive_.size();
      ++looked;
      continue;
    }
    receive_[next_].release();
    const PacketDescriptor packet = PacketDescriptor::decode(slot);
    held_ = packet.frame;
    const std::span<uint8_t> frame = pool_.frame(packet.frame);
    const bool version6 = packet.version == 6;
    const size_t header = version6 ? wire::Ipv6View::kHeaderBytes : wire::Ipv4View::kHeaderBytes;
    const size_t end = size_t{packet.packet_offset} + packet.length;
    // Layer 3 has checked all of this; what lies in shared memory is checked again.
    const bool fits = packet.kind == PacketKind::kData && packet.protocol == kUdp &&
                      packet.packet_offset + header <= packet.upper_offset && end <= frame.size() &&
                      packet.upper_offset <= end;
    const auto udp =
        fits ? wire::UdpView::parse(frame.subspan(packet.upper_offset, end - packet.upper_offset))
             : std::nullopt;
    if (!udp) {
      done();
      continue;
    }
    const size_t source =
        packet.packet_offset + (version6 ? wire::ipv6_field::kSource : wire::ipv4_field::kSource);
    const auto from = endpoint_of(version6, frame.data() + source, udp->source_port());
    if (!from) {
      done();
      continue;
    }
    Message message;
    message.bytes = udp->payload();
    message.segment_bytes = packet.gso_bytes == 0 ? message.bytes.size() : packet.gso_bytes;
    message.from = *from;
    message.port = udp->destination_port();
    return message;
  }
  return std::nullopt;
}

void RawPort::done() {
  if (held_ != 0) pool_.release(held_);
  held_ = 0;
}

bool RawPort::sleep() {
  bool idle = true;
  for (RingConsumer& ring : receive_) idle = ring.sleep() && idle;
  return idle;
}

void RawPort::wake() {
  for (RingConsumer& ring : receive_) ring.wake();
}

const uint8_t* RawPort::source_for(uint8_t version, const uint8_t* to) const {
  const uint8_t* any = nullptr;
  for (size_t i = 0; i < addresses_.size(); ++i) {
    const OwnAddress& own = addresses_.at(i);
    if (own.whole || own.prefix.address.version != version) continue;
    if (own.prefix.contains(version, to)) return own.prefix.address.bytes.data();
    if (any == nullptr) any = own.prefix.address.bytes.data();
  }
  return any;
}

int RawPort::send(uint16_t from, const IpEndpoint& to, std::span<const iovec> pieces, size_t bytes,
                  size_t segment_bytes) {
  const bool version6 = to.is_v6();
  const uint8_t version = version6 ? 6 : 4;
  const uint8_t* destination = address_of(to);
  const uint8_t* source = source_for(version, destination);
  if (source == nullptr) return EADDRNOTAVAIL;
  const size_t address_bytes = version6 ? 16 : 4;
  const size_t ip_bytes = version6 ? wire::Ipv6View::kHeaderBytes : wire::Ipv4View::kHeaderBytes;
  const size_t length = ip_bytes + wire::UdpView::kHeaderBytes + bytes;
  if (length > kPacketBytesMax) return EMSGSIZE;
  const bool large = kHeadroomBytes + length > FramePool::kSmallBytes;
  if (transmit_.is_full()) return EAGAIN;
  const uint32_t frame = pool_.allocate(large);
  if (frame == 0) return EAGAIN;
  const size_t offset = large ? 0 : kHeadroomBytes;
  uint8_t* upper = pool_.own_frame(frame) + offset + ip_bytes;
  std::memcpy(upper - 2 * address_bytes, source, address_bytes);
  std::memcpy(upper - address_bytes, destination, address_bytes);
  wire::store16(upper + wire::udp_field::kSourcePort, from);
  wire::store16(upper + wire::udp_field::kDestinationPort, to.port());
  wire::store16(upper + wire::udp_field::kLength,
                static_cast<uint32_t>(wire::UdpView::kHeaderBytes + bytes));
  wire::store16(upper + wire::udp_field::kChecksum, 0);
  uint8_t* at = upper + wire::UdpView::kHeaderBytes;
  for (const iovec& piece : pieces) {
    std::memcpy(at, piece.iov_base, piece.iov_len);
    at += piece.iov_len;
  }
  PacketDescriptor packet;
  packet.frame = frame;
  packet.packet_offset = static_cast<uint32_t>(offset);
  packet.upper_offset = static_cast<uint32_t>(offset + ip_bytes);
  packet.length = static_cast<uint32_t>(length);
  packet.protocol = kUdp;
  packet.version = version;
  if (segment_bytes > 0 && segment_bytes < bytes) {
    packet.gso_kind = GsoKind::kUdp;
    packet.gso_bytes = static_cast<uint16_t>(segment_bytes);
  }
  // There was a place, and nobody else takes places.
  (void)transmit_.push(packet.encode());
  return 0;
}

void RawPort::flush() {
  if (transmit_.publish()) link_.ring();
}

}  // namespace apo
