#include "thread/receive_path.h"

#include <cstring>

#include "ip/segmentation.h"
#include "wire/icmp.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace apo {
namespace {

// The largest packet built here: an error on IPv6 (RFC 4443 2.4 c).
constexpr size_t kReplyBytes = 1280;

PacketKind packet_kind(InputKind kind) {
  if (kind == InputKind::kEchoReply) return PacketKind::kEchoReply;
  return kind == InputKind::kIcmpError ? PacketKind::kIcmpError : PacketKind::kData;
}

}  // namespace

ReceivePath::ReceivePath(PacketContext& context, TransmitPath& transmit,
                         std::span<uint32_t, kShards> shard_owners, Workers& workers)
    : context_(context),
      transmit_(transmit),
      shard_owners_(shard_owners),
      workers_(workers),
      error_budget_(context.steer_key),
      reassembler_(context.steer_key, context.counters),
      reply_(new uint8_t[kReplyBytes]) {}

size_t ReceivePath::receive_batch() {
  std::array<IncomingPacket, Link::kBatch> packets;
  const size_t received = context_.link->receive(packets);
  const size_t looped = transmit_.looped().size();
  if (received + looped == 0) return 0;
  if (received > 0) {
    count(LinkCounter::kRxBatches);
    count(LinkCounter::kRxPackets, received);
    // The packets of a batch have one time of arrival: they are microseconds apart at most.
    context_.now_us = clock_us();
    if (context_.guard) context_.guard->begin_batch();
    context_.groups->refresh(context_.group_view);
    handle_all({packets.data(), received}, false);
  }
  if (looped > 0) {
    handle_all(transmit_.looped(), true);
    transmit_.looped().clear();
  }
  publish();
  return received + looped;
}

void ReceivePath::handle_all(std::span<const IncomingPacket> packets, bool looped) {
  uint64_t bytes = 0;
  for (const IncomingPacket& packet : packets) {
    bytes += packet.length;
    if (!handle(packet, looped)) context_.pool.release(packet.frame);
  }
  if (!looped) count(LinkCounter::kRxBytes, bytes);
}

void ReceivePath::publish() {
  for (auto& worker : workers_) {
    if (!worker || worker->receive.unpublished() == 0 || !worker->receive.publish()) continue;
    worker->port.doorbell.ring();
    count(LinkCounter::kRxWakes);
  }
}

bool ReceivePath::drop(LinkCounter reason, std::span<const uint8_t> bytes, const Offload& offload) {
  count(reason);
  context_.record(CaptureDirection::kInbound, bytes, offload, reason);
  if (context_.guard) context_.guard->dropped(reason, bytes, context_.now_us);
  return false;
}

bool ReceivePath::handle(const IncomingPacket& packet, bool looped) {
  const std::span<const uint8_t> bytes = bytes_of(packet);
  if (context_.guard && !looped) {
    const LinkCounter verdict = context_.guard->admit(bytes, context_.now_us);
    if (verdict != LinkCounter::kRxPackets) return drop(verdict, bytes, packet.offload);
  }
  const InputPacket input =
      check_input(bytes, context_.addresses, packet.offload, looped, &context_.group_view);
  if (input.kind == InputKind::kFragment) return reassemble(input, packet, looped);
  if (input.kind != InputKind::kDropped) return dispatch(input, packet);
  drop(input.drop_reason, bytes, packet.offload);
  if (input.quotes_echo_reply) learn_path_mtu(input, bytes);
  // An IPv6 packet that says that nothing follows its headers is dropped before it is looked at
  // further (no source), and is no error of its sender's.
  if (input.drop_reason == LinkCounter::kRxDroppedProtocol && input.source != nullptr) {
    const IcmpError error{IcmpErrorKind::kProtocolUnreachable, input.next_header_offset};
    send_error(error, input.version, input.source, bytes.first(input.length),
               LinkCounter::kIcmpUnreachables);
  }
  return false;
}

bool ReceivePath::dispatch(const InputPacket& input, const IncomingPacket& packet) {
  const std::span<uint8_t> bytes = bytes_of(packet);
  if (input.kind == InputKind::kGroupQuery) {
    count(LinkCounter::kRxAnswered);
    count(LinkCounter::kGroupQueries);
    context_.record(CaptureDirection::kInbound, bytes, packet.offload, PacketCapture::kNoReason);
    context_.groups->query(input.version, bytes.subspan(input.upper_offset, input.upper_length),
                           context_.now_us);
    return false;
  }
  if (input.kind != InputKind::kEchoRequest) return steer(input, packet);
  context_.record(CaptureDirection::kInbound, bytes, packet.offload, PacketCapture::kNoReason);
  answer_echo(input, bytes);
  return false;
}

// A fragment is copied. The datagram that it makes whole is handled like a packet that has just come.
bool ReceivePath::reassemble(const InputPacket& input, const IncomingPacket& packet, bool looped) {
  const auto bytes = bytes_of(packet).first(input.length);
  const Reassembler::Result result = reassembler_.add(bytes, context_.now_us);
  // Two fragment headers, of which the first is an atomic fragment's.
  if (result.outcome == Reassembler::Outcome::kNotFragment) {
    return drop(LinkCounter::kRxDroppedExtension, bytes, packet.offload);
  }
  const bool taken = result.outcome == Reassembler::Outcome::kWaiting ||
                     result.outcome == Reassembler::Outcome::kComplete;
  context_.record(CaptureDirection::kInbound, bytes, packet.offload,
                  taken ? PacketCapture::kNoReason : result.reason);
  if (!taken && context_.guard) context_.guard->dropped(result.reason, bytes, context_.now_us);
  if (result.has_error) {
    send_error(result.error, input.version, input.source, bytes, LinkCounter::kIcmpErrors);
  }
  if (result.outcome != Reassembler::Outcome::kComplete) return false;
  IncomingPacket whole;
  const bool small = result.datagram.size() <= LinkContext::kSmallPacketBytes;
  if (result.datagram.size() > FramePool::kLargeBytes) {
    return drop(LinkCounter::kRxDroppedTooBig, result.datagram, {});
  }
  whole.frame = context_.pool.allocate(!small);
  if (whole.frame == 0) return drop(LinkCounter::kRxDroppedPoolEmpty, result.datagram, {});
  whole.offset = small ? LinkContext::kHeadroomBytes : 0;
  whole.length = static_cast<uint32_t>(result.datagram.size());
  std::memcpy(bytes_of(whole).data(), result.datagram.data(), result.datagram.size());
  const InputPacket datagram =
      check_input(bytes_of(whole), context_.addresses, {}, looped, &context_.group_view);
  const bool passed_on =
      datagram.kind == InputKind::kDropped || datagram.kind == InputKind::kFragment
          ? drop(datagram.kind == InputKind::kFragment ? LinkCounter::kRxDroppedExtension
                                                       : datagram.drop_reason,
                 bytes_of(whole), {})
          : dispatch(datagram, whole);
  if (!passed_on) context_.pool.release(whole.frame);
  return false;
}

void ReceivePath::tick() {
  std::span<const uint8_t> first_fragment;
  while (reassembler_.expire(context_.now_us, first_fragment)) {
    if (first_fragment.empty()) continue;
    const uint8_t version = first_fragment[0] >> 4;
    const uint8_t* source = first_fragment.data() +
                            (version == 4 ? wire::ipv4_field::kSource : wire::ipv6_field::kSource);
    send_error({IcmpErrorKind::kReassemblyTimeExceeded, 0}, version, source, first_fragment,
               LinkCounter::kIcmpErrors);
  }
}

void ReceivePath::clear() {
  for (const IncomingPacket& packet : transmit_.looped()) {
    count(LinkCounter::kRxDroppedClosing);
    context_.pool.release(packet.frame);
  }
  transmit_.looped().clear();
  reassembler_.clear();
}

void ReceivePath::answer_echo(const InputPacket& input, std::span<uint8_t> bytes) {
  count(LinkCounter::kRxAnswered);
  if (transmit_.send_own(build_echo_reply_in_place(input, bytes))) {
    count(LinkCounter::kIcmpEchoReplies);
  }
}

bool ReceivePath::steer(const InputPacket& input, const IncomingPacket& packet) {
  const std::span<const uint8_t> bytes = bytes_of(packet);
  const uint32_t hash = input.steer(context_.steer_key);
  if (AttachedWorker* engine = engine_of(input)) {
    if (input.kind == InputKind::kUdp) return deliver(*engine, input, packet, hash);
    // An engine sends to who asked for it, and is not told of each that has gone.
    learn_path_mtu(input, bytes);
    return false;
  }
  const std::atomic_ref<uint32_t> owner(shard_owners_[shard_of(hash)]);
  const uint32_t index = owner.load(std::memory_order_relaxed) - 1;  // nobody: the largest number
  if (index >= kWorkersMax || !workers_[index]) {
    return drop(LinkCounter::kRxDroppedNoWorker, bytes, packet.offload);
  }
  AttachedWorker& worker = *workers_[index];
  const bool refused =
      (input.kind == InputKind::kUdp &&
       !worker.has_open(worker.port.open_udp_ports, input.flow_destination_port)) ||
      (input.kind == InputKind::kTcp &&
       !worker.has_open(worker.port.open_tcp_ports, input.flow_destination_port));
  if (refused) {
    drop(LinkCounter::kRxDroppedUnopened, bytes, packet.offload);
    // An error quotes the packet as it would have been on a wire.
    if (packet.offload.checksum_state == ChecksumState::kPartial) {
      (void)complete_checksum(bytes_of(packet).first(input.length));
    }
    refuse_port(input, bytes);
    return false;
  }
  // Believed is who quotes a packet from a port that is open here; of TCP, where the sequence number can
  // be held against the connection, it is for the worker to judge (RFC 5927 7.2).
  if (input.kind == InputKind::kIcmpError &&
      (input.flow_protocol != wire::ip_protocol::kUdp ||
       worker.has_open(worker.port.open_udp_ports, input.flow_source_port))) {
    learn_path_mtu(input, bytes);
  }
  return deliver(worker, input, packet, hash);
}

// The engine that has the datagram's port open, or the one of the datagram that an error quotes.
AttachedWorker* ReceivePath::engine_of(const InputPacket& input) {
  const bool is_error =
      input.kind == InputKind::kIcmpError && input.flow_protocol == wire::ip_protocol::kUdp;
  if (input.kind != InputKind::kUdp && !is_error) return nullptr;
  const uint16_t port = is_error ? input.flow_source_port : input.flow_destination_port;
  for (size_t place = kWorkersMax; place < kPlacesMax; ++place) {
    AttachedWorker* engine = workers_[place].get();
    if (engine && engine->has_open(engine->port.open_udp_ports, port)) return engine;
  }
  return nullptr;
}

// Datagrams to the destination go in pieces from here on (RFC 1191, RFC 8201).
void ReceivePath::learn_path_mtu(const InputPacket& input, std::span<const uint8_t> bytes) {
  const bool version6 = input.version == 6;
  const uint32_t wanted =
      version6 ? wire::icmpv6_type::kPacketTooBig << 8
               : wire::icmp_type::kUnreachable << 8 | wire::icmp_type::kCodeFragmentationNeeded;
  if (input.icmp_type_code != wanted || input.flow_protocol == wire::ip_protocol::kTcp) return;
  const uint8_t* message = bytes.data() + input.upper_offset;
  const uint8_t* quoted = message + wire::icmp_field::kQuoted;
  const size_t reported = version6 ? wire::load32(message + wire::icmp_field::kMtu6)
                                   : wire::load16(message + wire::icmp_field::kMtu4);
  const size_t packet_bytes = version6 ? wire::Ipv6View::kHeaderBytes +
                                             wire::load16(quoted + wire::ipv6_field::kPayloadLength)
                                       : wire::load16(quoted + wire::ipv4_field::kTotalLength);
  const auto learned =
      context_.path_mtus.learn(input.version, input.flow_destination, reported, packet_bytes,
                               context_.link->mtu(), context_.now_us);
  if (learned == PathMtuCache::Learned::kLowered) count(LinkCounter::kPathMtuLowered);
}

void ReceivePath::refuse_port(const InputPacket& input, std::span<const uint8_t> bytes) {
  if (input.kind == InputKind::kUdp) {
    send_error({IcmpErrorKind::kPortUnreachable, 0}, input.version, input.source,
               bytes.first(input.length), LinkCounter::kIcmpUnreachables);
    return;
  }
  if (!error_budget_.take(input.version, input.source, context_.now_us)) {
    count(LinkCounter::kIcmpLimited);
    return;
  }
  const size_t length = build_tcp_reset(input, bytes, {reply_.get(), kReplyBytes});
  if (length > 0 && transmit_.send_own({reply_.get(), length})) count(LinkCounter::kTcpResets);
}

void ReceivePath::send_error(const IcmpError& error, uint8_t version, const uint8_t* to,
                             std::span<const uint8_t> offender, LinkCounter counter) {
  if (!error_budget_.take(version, to, context_.now_us)) {
    count(LinkCounter::kIcmpLimited);
    return;
  }
  const size_t length = build_icmp_error(error, offender, {reply_.get(), kReplyBytes});
  if (length > 0 && transmit_.send_own({reply_.get(), length})) count(counter);
}

bool ReceivePath::deliver(AttachedWorker& worker, const InputPacket& input,
                          const IncomingPacket& incoming, uint32_t hash) {
  PacketDescriptor packet;
  packet.frame = incoming.frame;
  packet.packet_offset = incoming.offset;
  packet.upper_offset = incoming.offset + input.upper_offset;
  packet.length = input.length;
  packet.protocol = input.protocol;
  packet.shard = static_cast<uint8_t>(shard_of(hash));
  packet.version = input.version;
  packet.checksum_state = input.checksum_state;
  packet.gso_kind = incoming.offload.gso_kind;
  packet.gso_bytes = incoming.offload.gso_bytes;
  packet.kind = packet_kind(input.kind);
  packet.label = packet.kind == PacketKind::kData ? input.flow_label : input.icmp_type_code;
  packet.hop_limit = input.hop_limit;
  packet.traffic_class = input.traffic_class;
  packet.received_us = static_cast<uint32_t>(context_.now_us);
  packet.hash = hash;
  if (!worker.receive.push(packet.encode())) {
    return drop(LinkCounter::kRxDroppedWorkerFull, bytes_of(incoming), incoming.offload);
  }
  count(LinkCounter::kRxDelivered);
  context_.record(CaptureDirection::kInbound, bytes_of(incoming), incoming.offload,
                  PacketCapture::kNoReason);
  return true;
}

}  // namespace apo
