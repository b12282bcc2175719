#include "links/mem_wire.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <unordered_map>

#include "ip/segmentation.h"
#include "links/mem_mirror.h"
#include "util/clock.h"

namespace apo {
namespace {

// All wires of the process by number. Weak: a wire lives as long as its handles and endpoints do.
struct Registry {
  std::mutex mutex;
  uint32_t next_id = 1;
  std::unordered_map<uint32_t, std::weak_ptr<MemWire>> wires;
};

Registry& registry() {
  // Never destroyed: native threads of other environments may outlive static destructors.
  static Registry* instance = new Registry;
  return *instance;
}

bool is_partial(const Offload& offload) {
  return offload.checksum_state == ChecksumState::kPartial;
}

void flip(uint8_t* packet, uint32_t bit) {
  if (bit != ImpairmentDecision::kNoBit) packet[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
}

bool is_group(std::span<const uint8_t> address) {
  if (address.empty()) return false;
  return address.size() == 4 ? address[0] >> 4 == 14 : address[0] == 0xff;
}

}  // namespace

MemEndpoint::MemEndpoint(std::shared_ptr<MemWire> wire, uint32_t number)
    : MemPlug(number, wire->options().mtu),
      wire_(std::move(wire)),
      inbox_(wire_->options().inbox_bytes) {}

int MemEndpoint::start(const LinkContext& context) {
  const std::lock_guard lock(producers_);
  context_ = context;
  return 0;
}

// A bad line loses packets and not what a sender put together: it takes no super-packets.
LinkFeatures MemEndpoint::features() const {
  const bool whole = !wire_->decides();
  return {true, whole, whole};
}

size_t MemEndpoint::receive(std::span<IncomingPacket> packets) {
  const bool all = closed_.load(std::memory_order_acquire);
  size_t count = 0;
  MemInbox::Taken taken;
  while (count < packets.size() && inbox_.take(taken, all)) {
    const IncomingFrame place = context_->take_frame(taken.bytes.size());
    if (place.frame == 0) continue;
    std::memcpy(place.bytes, taken.bytes.data(), taken.bytes.size());
    packets[count++] = {place.frame, place.offset, static_cast<uint32_t>(taken.bytes.size()),
                        taken.offload};
  }
  inbox_.release();
  return count;
}

void MemEndpoint::send(std::span<OutgoingPacket> packets) {
  const std::shared_ptr<const MemTable> table = wire_->table();
  const MemSender sender{number_, context_ ? &context_->counters : nullptr};
  std::array<OutgoingPacket*, kBatch> group;
  size_t grouped = 0;
  MemPlug* to = nullptr;
  std::span<const uint8_t> last;
  // Neighbours with the same destination share a search and a turn at its inbox.
  for (OutgoingPacket& packet : packets) {
    const std::span<const uint8_t> address = mem_destination(packet.bytes);
    if (is_group(address)) {
      if (grouped > 0) to->deliver(sender, *table, {group.data(), grouped});
      grouped = 0;
      to = nullptr;
      last = {};
      flood(sender, *table, packet);
      continue;
    }
    MemPlug* found = to;
    if (address.empty() || last.size() != address.size() ||
        !same_address(address.size() == 4 ? 4 : 6, address.data(), last.data())) {
      found = address.empty() ? nullptr : table->find(address.size() == 4 ? 4 : 6, address.data());
    }
    last = address;
    if (grouped > 0 && (found != to || grouped == group.size())) {
      to->deliver(sender, *table, {group.data(), grouped});
      grouped = 0;
    }
    to = found;
    packet.result = LinkCounter::kTxDroppedNoRoute;
    if (to != nullptr) group[grouped++] = &packet;
  }
  if (grouped > 0) to->deliver(sender, *table, {group.data(), grouped});
}

void MemEndpoint::flood(const MemSender& sender, const MemTable& table, OutgoingPacket& packet) {
  LinkCounter result = LinkCounter::kTxPackets;
  for (const auto& plug : table.all()) {
    if (plug.get() == this || plug->is_mirror()) continue;
    OutgoingPacket* one = &packet;
    plug->deliver(sender, table, {&one, 1});
    // Whom it does not reach, because his inbox is full or he has just gone, is his own affair.
    if (packet.result == LinkCounter::kTxDroppedTooBig) result = packet.result;
  }
  packet.result = result;
}

void MemEndpoint::deliver(const MemSender& sender, const MemTable& /*table*/,
                          std::span<OutgoingPacket* const> packets) {
  const std::lock_guard lock(producers_);
  if (!plugged_) {
    for (OutgoingPacket* packet : packets) packet->result = LinkCounter::kTxDroppedNoRoute;
    return;
  }
  const bool over_line = lines_.active() && sender.number != MemSender::kOutside;
  Impairment* line = over_line ? &lines_.from(sender.number) : nullptr;
  const uint64_t now_us = line != nullptr ? clock_us() : 0;
  for (OutgoingPacket* packet : packets) {
    const Arrival arrival{packet->bytes, packet->offload};
    packet->result = is_too_big(*packet) ? LinkCounter::kTxDroppedTooBig
                     : line == nullptr   ? put(arrival, ImpairmentDecision::kNoBit, 0)
                                         : pass_line(*line, sender, arrival, now_us, now_us);
  }
  publish();
}

bool MemEndpoint::reflect(const MemSender& sender, uint32_t mirror,
                          std::span<const MemReflection> packets) {
  const std::lock_guard lock(producers_);
  if (!plugged_) return false;
  const bool over_line = lines_.active() && sender.number != MemSender::kOutside;
  Impairment* line = over_line ? &lines_.from(mirror) : nullptr;
  const uint64_t now_us = line != nullptr ? clock_us() : 0;
  for (const MemReflection& reflection : packets) {
    OutgoingPacket& packet = *reflection.packet;
    const Arrival arrival{packet.bytes, packet.offload, reflection.corrupt_bit, true};
    const LinkCounter result = line == nullptr
                                   ? put(arrival, ImpairmentDecision::kNoBit, reflection.at_us)
                                   : pass_line(*line, sender, arrival, reflection.at_us, now_us);
    if (!reflection.is_copy) {
      packet.result = result;
    } else if (result == LinkCounter::kTxPackets) {
      sender.count(LinkCounter::kWireDuplicated);
    }
  }
  publish();
  return true;
}

LinkCounter MemEndpoint::pass_line(Impairment& line, const MemSender& sender,
                                   const Arrival& arrival, uint64_t at_us, uint64_t now_us) {
  const auto length = static_cast<uint32_t>(arrival.bytes.size());
  const ImpairmentDecision way = line.decide(at_us, length);
  sender.count(way);
  if (way.fate != PacketFate::kDelivered) return LinkCounter::kTxPackets;
  const auto due_us = [now_us](uint64_t at) { return at > now_us ? at : 0; };
  const LinkCounter result = put(arrival, way.corrupt_bit, due_us(way.at_us));
  if (result != LinkCounter::kTxPackets) return result;
  if (way.corrupt_bit != ImpairmentDecision::kNoBit) sender.count(LinkCounter::kWireCorrupted);
  if (way.copy_at_us != ImpairmentDecision::kNever &&
      put(arrival, way.corrupt_bit, due_us(way.copy_at_us)) == LinkCounter::kTxPackets) {
    sender.count(LinkCounter::kWireDuplicated);
  }
  return result;
}

LinkCounter MemEndpoint::put(const Arrival& arrival, uint32_t corrupt_bit, uint64_t due_us) {
  const bool corrupted = corrupt_bit != ImpairmentDecision::kNoBit ||
                         arrival.corrupt_bit != ImpairmentDecision::kNoBit;
  // A checksum that nobody has computed yet would hide the damage.
  const bool completes = corrupted && is_partial(arrival.offload);
  uint8_t* copy = inbox_.push(arrival.bytes, completes ? Offload{} : arrival.offload, due_us);
  if (copy == nullptr) return LinkCounter::kTxDroppedInboxFull;
  if (completes) (void)complete_checksum({copy, arrival.bytes.size()});
  flip(copy, arrival.corrupt_bit);
  if (arrival.mirrored) swap_ends({copy, arrival.bytes.size()});
  flip(copy, corrupt_bit);
  return LinkCounter::kTxPackets;
}

void MemEndpoint::publish() {
  if (inbox_.publish() && context_) context_->doorbell.ring();
}

void MemEndpoint::close() { wire_->unplug(number_); }

void MemEndpoint::unplug() {
  MemPlug::unplug();
  closed_.store(true, std::memory_order_release);
}

MemWire::MemWire(uint32_t id, const MemWireOptions& options)
    : id_(id),
      options_(options),
      impairment_(options.impairment),
      decides_(options.impairment.decides()),
      table_(std::make_shared<MemTable>()) {}

MemWire::~MemWire() {
  const std::lock_guard lock(registry().mutex);
  registry().wires.erase(id_);
}

std::shared_ptr<MemWire> MemWire::create(const MemWireOptions& options) {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  const uint32_t id = all.next_id++;
  std::shared_ptr<MemWire> wire(new MemWire(id, options));
  all.wires[id] = wire;
  return wire;
}

std::shared_ptr<MemWire> MemWire::find(uint32_t id) {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  const auto found = all.wires.find(id);
  return found == all.wires.end() ? nullptr : found->second.lock();
}

size_t MemWire::endpoints() {
  const std::lock_guard lock(mutex_);
  return plugs_.size() - mirrors_;
}

ImpairmentSettings MemWire::impairment() {
  const std::lock_guard lock(mutex_);
  return impairment_;
}

void MemWire::impair(const ImpairmentSettings& settings) {
  const std::lock_guard lock(mutex_);
  const ImpairmentSettings before = impairment_;
  impairment_ = settings;
  impairment_.seed_low = before.seed_low;
  impairment_.seed_high = before.seed_high;
  decides_.store(impairment_.decides(), std::memory_order_relaxed);
  for (const auto& plug : plugs_) plug->impair(impairment_);
}

bool MemWire::plug(const AddressSet& addresses, const std::shared_ptr<MemPlug>& plug,
                   IpAddress* taken) {
  auto table = std::make_shared<MemTable>(*table_);
  if (!table->add(addresses, plug, taken)) return false;
  plug->impair(impairment_);
  plugs_.push_back(plug);
  table_ = std::move(table);
  ++next_number_;
  return true;
}

std::shared_ptr<MemEndpoint> MemWire::plug_in(const AddressSet& addresses, IpAddress* taken) {
  const std::lock_guard lock(mutex_);
  if (plugs_.size() == kEndpointsMax) return nullptr;
  auto endpoint = std::make_shared<MemEndpoint>(shared_from_this(), next_number_);
  return plug(addresses, endpoint, taken) ? endpoint : nullptr;
}

uint32_t MemWire::add_mirror(const AddressSet& addresses, IpAddress* taken) {
  const std::lock_guard lock(mutex_);
  if (plugs_.size() == kEndpointsMax) return 0;
  const auto mirror = std::make_shared<MemMirror>(next_number_, options_.mtu);
  if (!plug(addresses, mirror, taken)) return 0;
  ++mirrors_;
  return mirror->number();
}

void MemWire::unplug(uint32_t number) {
  std::shared_ptr<MemPlug> gone;
  {
    const std::lock_guard lock(mutex_);
    const auto found =
        std::ranges::find_if(plugs_, [&](const auto& plug) { return plug->number() == number; });
    if (found == plugs_.end()) return;
    gone = *found;
    plugs_.erase(found);
    if (gone->is_mirror()) --mirrors_;
    auto table = std::make_shared<MemTable>(*table_);
    table->remove(*gone);
    table_ = std::move(table);
    for (const auto& plug : plugs_) plug->forget(number);
  }
  gone->unplug();
}

LinkCounter MemWire::inject(const IpAddress& to, std::span<const uint8_t> bytes) {
  const std::shared_ptr<const MemTable> now = table();
  MemPlug* plug = now->find(to.version, to.bytes.data());
  if (plug == nullptr) return LinkCounter::kTxDroppedNoRoute;
  OutgoingPacket packet;
  packet.bytes = bytes;
  OutgoingPacket* const group[] = {&packet};
  plug->deliver({}, *now, group);
  return packet.result;
}

std::shared_ptr<const MemTable> MemWire::table() {
  const std::lock_guard lock(mutex_);
  return table_;
}

OpenedLink open_mem_link(const LinkSettings& settings) {
  const auto id = static_cast<uint32_t>(settings.integer("wire", 0, UINT32_MAX, 0));
  const std::shared_ptr<MemWire> wire = MemWire::find(id);
  if (!wire) return OpenedLink::failed(ENOENT, "wire");
  IpAddress taken;
  taken.version = 0;
  auto endpoint = wire->plug_in(settings.addresses, &taken);
  if (!endpoint) return OpenedLink::failed(taken.version != 0 ? EADDRINUSE : ENFILE, "plug in");
  OpenedLink link;
  link.queues.push_back(std::move(endpoint));
  link.addresses = settings.addresses;
  return link;
}

}  // namespace apo
