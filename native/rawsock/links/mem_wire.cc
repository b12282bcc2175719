#include "links/mem_wire.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>

#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace apo {
namespace {

constexpr size_t kRecordAlign = 16;

constexpr size_t align_up(size_t bytes) { return (bytes + kRecordAlign - 1) & ~(kRecordAlign - 1); }

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

bool destination_of(std::span<const uint8_t> packet, IpAddress& destination) {
  if (packet.size() >= wire::Ipv4View::kHeaderBytes && packet[0] >> 4 == 4) {
    destination = IpAddress::from_bytes(4, packet.data() + wire::ipv4_field::kDestination);
    return true;
  }
  if (packet.size() >= wire::Ipv6View::kHeaderBytes && packet[0] >> 4 == 6) {
    destination = IpAddress::from_bytes(6, packet.data() + wire::ipv6_field::kDestination);
    return true;
  }
  return false;
}

}  // namespace

MemInbox::MemInbox(size_t bytes)
    : memory_(new uint8_t[std::bit_ceil(bytes)]), capacity_(std::bit_ceil(bytes)) {}

void MemInbox::put_record(uint64_t position, const Record& record) {
  std::memcpy(memory_.get() + (position & (capacity_ - 1)), &record, sizeof record);
}

bool MemInbox::push(std::span<const uint8_t> packet, const Offload& offload) {
  const size_t record = kHeaderBytes + align_up(packet.size());
  const size_t to_end = capacity_ - (writing_ & (capacity_ - 1));
  const size_t skipped = record > to_end ? to_end : 0;
  const uint64_t used = writing_ - tail_.load(std::memory_order_acquire);
  if (used + skipped + record > capacity_) return false;
  if (skipped > 0) {
    put_record(writing_, {kSkip, {}});
    writing_ += skipped;
  }
  put_record(writing_, {static_cast<uint32_t>(packet.size()), offload});
  std::memcpy(memory_.get() + (writing_ & (capacity_ - 1)) + kHeaderBytes, packet.data(),
              packet.size());
  writing_ += record;
  return true;
}

bool MemInbox::publish() {
  head_.store(writing_, std::memory_order_seq_cst);
  if (sleeping_.load(std::memory_order_seq_cst) == 0) return false;
  return sleeping_.exchange(0, std::memory_order_seq_cst) == 1;
}

std::span<const uint8_t> MemInbox::take(Offload& offload) {
  while (reading_ != head_.load(std::memory_order_acquire)) {
    const size_t at = reading_ & (capacity_ - 1);
    Record record;
    std::memcpy(&record, memory_.get() + at, sizeof record);
    if (record.length == kSkip) {
      reading_ += capacity_ - at;
      continue;
    }
    reading_ += kHeaderBytes + align_up(record.length);
    offload = record.offload;
    return {memory_.get() + at + kHeaderBytes, record.length};
  }
  return {};
}

bool MemInbox::prepare_sleep() {
  sleeping_.store(1, std::memory_order_seq_cst);
  if (head_.load(std::memory_order_seq_cst) == reading_) return true;
  finish_sleep();
  return false;
}

MemEndpoint::MemEndpoint(std::shared_ptr<MemWire> wire, const AddressSet& addresses)
    : wire_(std::move(wire)), addresses_(addresses), inbox_(wire_->options().inbox_bytes) {}

int MemEndpoint::start(const LinkContext& context) {
  const std::lock_guard lock(producers_);
  context_ = context;
  return 0;
}

size_t MemEndpoint::mtu() const { return wire_->options().mtu; }

size_t MemEndpoint::receive(std::span<IncomingPacket> packets) {
  size_t count = 0;
  while (count < packets.size()) {
    IncomingPacket& packet = packets[count];
    const std::span<const uint8_t> bytes = inbox_.take(packet.offload);
    if (bytes.empty()) break;
    const IncomingFrame place = context_->take_frame(bytes.size());
    if (place.frame == 0) continue;
    std::memcpy(place.bytes, bytes.data(), bytes.size());
    packet.frame = place.frame;
    packet.offset = place.offset;
    packet.length = static_cast<uint32_t>(bytes.size());
    ++count;
  }
  inbox_.release();
  return count;
}

void MemEndpoint::send(std::span<OutgoingPacket> packets) {
  const std::shared_ptr<const MemWire::Table> table = wire_->table();
  std::array<OutgoingPacket*, kBatch> group;
  size_t grouped = 0;
  MemEndpoint* to = nullptr;
  // Neighbours with the same destination share one turn at its inbox.
  for (OutgoingPacket& packet : packets) {
    IpAddress destination;
    auto found = table->end();
    if (destination_of(packet.bytes, destination)) found = table->find(destination);
    if (found == table->end()) {
      packet.result = LinkCounter::kTxDroppedNoRoute;
      continue;
    }
    if (grouped == group.size() || (grouped > 0 && found->second.get() != to)) {
      to->deliver({group.data(), grouped});
      grouped = 0;
    }
    to = found->second.get();
    group[grouped++] = &packet;
  }
  if (grouped > 0) to->deliver({group.data(), grouped});
}

void MemEndpoint::deliver(std::span<OutgoingPacket* const> packets) {
  const std::lock_guard lock(producers_);
  for (OutgoingPacket* packet : packets) {
    if (!plugged_) {
      packet->result = LinkCounter::kTxDroppedNoRoute;
    } else if (packet->bytes.size() > mtu() && packet->offload.gso_kind == GsoKind::kNone) {
      packet->result = LinkCounter::kTxDroppedTooBig;
    } else {
      packet->result = inbox_.push(packet->bytes, packet->offload)
                           ? LinkCounter::kTxPackets
                           : LinkCounter::kTxDroppedInboxFull;
    }
  }
  if (plugged_ && inbox_.publish() && context_) context_->doorbell.ring();
}

void MemEndpoint::close() { wire_->unplug(shared_from_this()); }

void MemEndpoint::unplug() {
  const std::lock_guard lock(producers_);
  plugged_ = false;
}

size_t MemWire::AddressHash::operator()(const IpAddress& address) const {
  // FNV-1a. The table's keys are the process's own addresses: nobody outside chooses them.
  size_t hash = 14695981039346656037u ^ address.version;
  for (size_t i = 0; i < address.size(); ++i) hash = (hash ^ address.bytes[i]) * 1099511628211u;
  return hash;
}

MemWire::MemWire(uint32_t id, const MemWireOptions& options)
    : id_(id), options_(options), table_(std::make_shared<Table>()) {}

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
  return endpoints_;
}

std::shared_ptr<MemEndpoint> MemWire::plug_in(const AddressSet& addresses, IpAddress* taken) {
  auto endpoint = std::make_shared<MemEndpoint>(shared_from_this(), addresses);
  const std::lock_guard lock(mutex_);
  if (endpoints_ == kEndpointsMax) return nullptr;
  auto table = std::make_shared<Table>(*table_);
  for (size_t i = 0; i < addresses.size(); ++i) {
    if (!table->emplace(addresses.at(i).prefix.address, endpoint).second) {
      *taken = addresses.at(i).prefix.address;
      return nullptr;
    }
  }
  table_ = std::move(table);
  ++endpoints_;
  return endpoint;
}

void MemWire::unplug(const std::shared_ptr<MemEndpoint>& endpoint) {
  {
    const std::lock_guard lock(mutex_);
    if (std::ranges::none_of(*table_,
                             [&](const auto& entry) { return entry.second == endpoint; })) {
      return;
    }
    auto table = std::make_shared<Table>(*table_);
    std::erase_if(*table, [&](const auto& entry) { return entry.second == endpoint; });
    table_ = std::move(table);
    --endpoints_;
  }
  endpoint->unplug();
}

LinkCounter MemWire::inject(const IpAddress& to, std::span<const uint8_t> bytes) {
  const std::shared_ptr<const Table> now = table();
  const auto found = now->find(to);
  if (found == now->end()) return LinkCounter::kTxDroppedNoRoute;
  OutgoingPacket packet;
  packet.bytes = bytes;
  OutgoingPacket* const group[] = {&packet};
  found->second->deliver(group);
  return packet.result;
}

std::shared_ptr<const MemWire::Table> MemWire::table() {
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
