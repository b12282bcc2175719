#include "thread/transmit_path.h"

#include <algorithm>
#include <cstring>

#include "ip/segmentation.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace apo {
namespace {

// Room for a batch of pieces of one packet: its 65,535 bytes and a header for each piece.
constexpr size_t kPieceBytes = 65'536 + Link::kBatch * 128;

const uint8_t* source_of(std::span<const uint8_t> packet) {
  return packet.data() +
         (packet[0] >> 4 == 4 ? wire::ipv4_field::kSource : wire::ipv6_field::kSource);
}

const uint8_t* destination_of(std::span<const uint8_t> packet) {
  return packet.data() +
         (packet[0] >> 4 == 4 ? wire::ipv4_field::kDestination : wire::ipv6_field::kDestination);
}

}  // namespace

TransmitPath::TransmitPath(PacketContext& context)
    : context_(context),
      identifications_(context.steer_key),
      piece_bytes_(new uint8_t[kPieceBytes]) {
  looped_.reserve(Link::kBatch);
}

size_t TransmitPath::transmit_batch(AttachedWorker& worker) {
  // The frames were written on another processor: they are fetched from its cache while this one is
  // busy with those before.
  std::array<RingSlot, Link::kBatch> slots;
  size_t taken = 0;
  while (taken < slots.size() && worker.transmit.take(slots[taken])) {
    const PacketDescriptor packet = PacketDescriptor::decode(slots[taken++]);
    context_.pool.prefetch(packet.frame, packet.packet_offset);
  }
  size_t prepared = 0;
  for (size_t i = 0; i < taken; ++i) {
    const PacketDescriptor packet = PacketDescriptor::decode(slots[i]);
    const OutputPacket output =
        finish_output(packet, context_.pool.frame(packet.frame), context_.addresses);
    const Route way = output.ready ? route(output) : Route{Way::kRefused, output.drop_reason};
    if (way.way == Way::kDirect) {
      outgoing_[prepared].bytes = output.bytes;
      outgoing_[prepared].offload = output.offload;
      outgoing_refs_[prepared++] = packet.frame;
      continue;
    }
    // What was sent before it goes before it.
    send_batch(prepared);
    prepared = 0;
    const LinkCounter result = send_apart(output, way);
    count(result);
    if (result == LinkCounter::kTxPackets) count(LinkCounter::kTxBytes, output.bytes.size());
    context_.pool.release(packet.frame);
  }
  if (taken == 0) return 0;
  send_batch(prepared);
  worker.transmit.release();
  return taken;
}

TransmitPath::Route TransmitPath::route(const OutputPacket& output) {
  const std::span<const uint8_t> packet = output.bytes;
  const uint8_t* destination = destination_of(packet);
  const uint8_t version = packet[0] >> 4;
  if (context_.addresses.contains(version, destination)) return {Way::kLooped};
  const size_t link_mtu = context_.link->mtu();
  const size_t mtu = context_.path_mtus.mtu_for(version, destination, link_mtu, context_.now_us);
  if (output.offload.gso_kind != GsoKind::kNone) return route_super_packet(output, link_mtu);
  if (packet.size() <= mtu) return {Way::kDirect};
  if (output.may_fragment) return {Way::kFragment, LinkCounter::kTxPackets, mtu};
  // A segment that is too long for the path goes as far as it gets: its sender is told there.
  if (packet.size() <= link_mtu) return {Way::kDirect};
  return {Way::kRefused, LinkCounter::kTxDroppedTooBig};
}

TransmitPath::Route TransmitPath::route_super_packet(const OutputPacket& output, size_t mtu) {
  const auto segments = Segmenter::make(output.bytes, output.offload);
  if (!segments) return {Way::kRefused, LinkCounter::kTxDroppedDescriptor};
  if (segments->longest_bytes() > mtu) return {Way::kRefused, LinkCounter::kTxDroppedTooBig};
  const LinkFeatures features = context_.link->features();
  const bool taken =
      features.checksum &&
      (output.offload.gso_kind == GsoKind::kUdp ? features.udp_gso : features.tcp_gso);
  return {taken ? Way::kDirect : Way::kSegment, LinkCounter::kTxPackets, mtu};
}

LinkCounter TransmitPath::send_apart(const OutputPacket& output, const Route& route) {
  switch (route.way) {
    case Way::kLooped:
      return loop_back(output.bytes, output.offload);
    case Way::kFragment:
      return send_fragments(output.bytes, route.mtu);
    case Way::kSegment: {
      auto segments = Segmenter::make(output.bytes, output.offload);
      if (!segments) return LinkCounter::kTxDroppedDescriptor;
      return send_split(*segments, route.mtu, LinkCounter::kTxSegments);
    }
    default:
      context_.record(CaptureDirection::kOutbound, output.bytes, output.offload, route.reason);
      return route.reason;
  }
}

LinkCounter TransmitPath::loop_back(std::span<const uint8_t> packet, const Offload& offload) {
  if (looped_.size() == Link::kBatch) return LinkCounter::kTxDroppedInboxFull;
  const bool small = packet.size() <= LinkContext::kSmallPacketBytes;
  const uint32_t frame = context_.pool.allocate(!small);
  if (frame == 0) return LinkCounter::kTxDroppedInboxFull;
  const uint32_t offset = small ? LinkContext::kHeadroomBytes : 0;
  std::memcpy(context_.pool.own_frame(frame) + offset, packet.data(), packet.size());
  looped_.push_back({frame, offset, static_cast<uint32_t>(packet.size()), offload});
  count(LinkCounter::kTxLooped);
  return LinkCounter::kTxPackets;
}

LinkCounter TransmitPath::send_fragments(std::span<const uint8_t> packet, size_t mtu) {
  const uint8_t version = packet[0] >> 4;
  const uint32_t identification =
      identifications_.next(version, source_of(packet), destination_of(packet));
  auto fragments = Fragmenter::make(packet, mtu, identification);
  if (!fragments) return LinkCounter::kTxDroppedTooBig;
  return send_split(*fragments, mtu, LinkCounter::kTxFragments);
}

template <typename Splitter>
LinkCounter TransmitPath::send_split(Splitter& splitter, size_t piece_max, LinkCounter counter) {
  LinkCounter result = LinkCounter::kTxPackets;
  size_t used = 0;
  size_t made = 0;
  while (const size_t length = splitter.next({piece_bytes_.get() + used, kPieceBytes - used})) {
    pieces_[made].bytes = {piece_bytes_.get() + used, length};
    pieces_[made].offload = {};
    used += length;
    ++made;
    if (made < Link::kBatch && !splitter.done() && used + piece_max <= kPieceBytes) continue;
    if (const LinkCounter sent = send_pieces(made); sent != LinkCounter::kTxPackets) result = sent;
    count(counter, made);
    made = 0;
    used = 0;
  }
  return result;
}

// The first reason for which one of them was not taken.
LinkCounter TransmitPath::send_pieces(size_t made) {
  context_.link->send({pieces_.data(), made});
  LinkCounter result = LinkCounter::kTxPackets;
  for (size_t i = made; i-- > 0;) {
    context_.record(CaptureDirection::kOutbound, pieces_[i].bytes, pieces_[i].offload,
                    pieces_[i].result == LinkCounter::kTxPackets ? PacketCapture::kNoReason
                                                                 : pieces_[i].result);
    if (pieces_[i].result != LinkCounter::kTxPackets &&
        pieces_[i].result != LinkCounter::kTxParked) {
      result = pieces_[i].result;
    }
  }
  return result;
}

bool TransmitPath::send_own(std::span<const uint8_t> packet) {
  LinkCounter result = LinkCounter::kTxDroppedTooBig;
  if (packet.empty()) return false;
  const size_t mtu = context_.path_mtus.mtu_for(packet[0] >> 4, destination_of(packet),
                                                context_.link->mtu(), context_.now_us);
  if (packet.size() > mtu) {
    result = send_fragments(packet, mtu);
  } else {
    pieces_[0].bytes = packet;
    pieces_[0].offload = {};
    result = send_pieces(1);
  }
  if (result == LinkCounter::kTxPackets) return true;
  count(LinkCounter::kIcmpUndelivered);
  return false;
}

void TransmitPath::send_group_reports() {
  std::array<uint8_t, GroupMembership::kReportBytes> report;
  while (const size_t length =
             context_.groups->next_report(context_.now_us, context_.addresses, report)) {
    if (send_own({report.data(), length})) count(LinkCounter::kGroupReports);
  }
}

void TransmitPath::send_batch(size_t prepared) {
  if (prepared == 0) return;
  context_.link->send({outgoing_.data(), prepared});
  for (size_t i = 0; i < prepared; ++i) {
    account(outgoing_[i]);
    context_.pool.release(outgoing_refs_[i]);
  }
}

void TransmitPath::account(const OutgoingPacket& packet) {
  count(packet.result);
  if (packet.result == LinkCounter::kTxPackets) {
    count(LinkCounter::kTxBytes, packet.bytes.size());
  }
  context_.record(
      CaptureDirection::kOutbound, packet.bytes, packet.offload,
      packet.result == LinkCounter::kTxPackets ? PacketCapture::kNoReason : packet.result);
}

}  // namespace apo
