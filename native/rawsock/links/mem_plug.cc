#include "links/mem_plug.h"

#include <algorithm>

#include "ip/segmentation.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace apo {
namespace {

IpAddress first_of_prefix(uint8_t version, uint8_t bits, const uint8_t* address) {
  IpAddress first = IpAddress::from_bytes(version, address);
  for (size_t i = 0; i < first.size(); ++i) {
    const int kept = std::clamp(bits - static_cast<int>(8 * i), 0, 8);
    first.bytes[i] &= static_cast<uint8_t>(0xff00 >> kept);
  }
  return first;
}

std::span<const uint8_t> address_in(std::span<const uint8_t> packet, size_t at4, size_t at6) {
  if (packet.size() >= wire::Ipv4View::kHeaderBytes && packet[0] >> 4 == 4) {
    return packet.subspan(at4, wire::Ipv4View::kAddressBytes);
  }
  if (packet.size() >= wire::Ipv6View::kHeaderBytes && packet[0] >> 4 == 6) {
    return packet.subspan(at6, wire::Ipv6View::kAddressBytes);
  }
  return {};
}

}  // namespace

void MemSender::count(const ImpairmentDecision& decision) const {
  if (decision.reordered) count(LinkCounter::kWireReordered);
  switch (decision.fate) {
    case PacketFate::kLost:
      return count(LinkCounter::kWireLost);
    case PacketFate::kLostInBurst:
      return count(LinkCounter::kWireLostInBurst);
    case PacketFate::kQueueFull:
      return count(LinkCounter::kWireQueueFull);
    case PacketFate::kDelivered:
    case PacketFate::kTooBig:  // the wire asks `is_too_big` before
      return;
  }
}

Impairment& MemLines::from(uint32_t number) {
  const auto found = lines_.find(number);
  if (found != lines_.end()) return found->second;
  return lines_.emplace(number, Impairment(settings_, number, to_)).first->second;
}

void MemLines::change(const ImpairmentSettings& settings) {
  settings_ = settings;
  active_ = settings.active();
  for (auto& [number, line] : lines_) line.change(settings);
}

void MemPlug::impair(const ImpairmentSettings& settings) {
  const std::lock_guard lock(producers_);
  lines_.change(settings);
}

void MemPlug::forget(uint32_t number) {
  const std::lock_guard lock(producers_);
  lines_.forget(number);
}

void MemPlug::unplug() {
  const std::lock_guard lock(producers_);
  plugged_ = false;
}

bool MemPlug::is_too_big(const OutgoingPacket& packet) const {
  if (packet.bytes.size() <= plug_mtu_) return false;
  if (packet.offload.gso_kind == GsoKind::kNone) return true;
  const auto segments = Segmenter::make(packet.bytes, packet.offload);
  return !segments || segments->longest_bytes() > plug_mtu_;
}

size_t MemTable::Hash::operator()(const IpAddress& address) const {
  // FNV-1a. The table's keys are the process's own addresses: nobody outside chooses them.
  size_t hash = 14695981039346656037u ^ address.version;
  for (size_t i = 0; i < address.size(); ++i) hash = (hash ^ address.bytes[i]) * 1099511628211u;
  return hash;
}

MemPlug* MemTable::find(uint8_t version, const uint8_t* address) const {
  const auto exact = exact_.find(IpAddress::from_bytes(version, address));
  if (exact != exact_.end()) return exact->second.get();
  for (const Prefixes& length : prefixes_) {
    if (length.version != version) continue;
    const auto found = length.plugs.find(first_of_prefix(version, length.bits, address));
    if (found != length.plugs.end()) return found->second.get();
  }
  return nullptr;
}

MemTable::Plugs& MemTable::prefixes(uint8_t version, uint8_t bits) {
  auto place = std::ranges::find_if(prefixes_, [&](const Prefixes& length) {
    return length.version == version && length.bits == bits;
  });
  if (place == prefixes_.end()) {
    place =
        std::ranges::find_if(prefixes_, [&](const Prefixes& other) { return other.bits < bits; });
    place = prefixes_.insert(place, {version, bits, {}});
  }
  return place->plugs;
}

bool MemTable::add(const AddressSet& addresses, const std::shared_ptr<MemPlug>& plug,
                   IpAddress* taken) {
  for (size_t i = 0; i < addresses.size(); ++i) {
    const auto& [prefix, whole] = addresses.at(i);
    const IpAddress& address = prefix.address;
    Plugs& plugs = whole ? prefixes(address.version, prefix.prefix_bits) : exact_;
    const IpAddress key =
        whole ? first_of_prefix(address.version, prefix.prefix_bits, address.bytes.data())
              : address;
    if (plugs.emplace(key, plug).second) continue;
    *taken = address;
    return false;
  }
  all_.push_back(plug);
  return true;
}

void MemTable::remove(const MemPlug& plug) {
  const auto is_its = [&](const auto& entry) { return entry.second.get() == &plug; };
  std::erase_if(all_, [&](const auto& one) { return one.get() == &plug; });
  std::erase_if(exact_, is_its);
  for (Prefixes& length : prefixes_) std::erase_if(length.plugs, is_its);
  std::erase_if(prefixes_, [](const Prefixes& length) { return length.plugs.empty(); });
}

std::span<const uint8_t> mem_destination(std::span<const uint8_t> packet) {
  return address_in(packet, wire::ipv4_field::kDestination, wire::ipv6_field::kDestination);
}

std::span<const uint8_t> mem_source(std::span<const uint8_t> packet) {
  return address_in(packet, wire::ipv4_field::kSource, wire::ipv6_field::kSource);
}

}  // namespace apo
