#include "links/mem_mirror.h"

#include <algorithm>
#include <array>

#include "util/clock.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/udp.h"

namespace apo {

void MemMirror::deliver(const MemSender& sender, const MemTable& table,
                        std::span<OutgoingPacket* const> packets) {
  std::array<MemReflection, 2 * Link::kBatch> reflections;  // each packet, and its copy
  size_t count = 0;
  {
    const std::lock_guard lock(producers_);
    const bool over_line = lines_.active() && sender.number != MemSender::kOutside;
    Impairment* line = over_line ? &lines_.from(sender.number) : nullptr;
    const uint64_t now_us = line != nullptr ? clock_us() : 0;
    for (OutgoingPacket* packet : packets) {
      packet->result = !plugged_             ? LinkCounter::kTxDroppedNoRoute
                       : is_too_big(*packet) ? LinkCounter::kTxDroppedTooBig
                                             : LinkCounter::kTxPackets;
      if (packet->result != LinkCounter::kTxPackets) continue;
      if (line == nullptr) {
        reflections[count++] = {packet};
        continue;
      }
      const auto length = static_cast<uint32_t>(packet->bytes.size());
      const ImpairmentDecision way = line->decide(now_us, length);
      sender.count(way);
      if (way.fate != PacketFate::kDelivered) continue;
      if (way.corrupt_bit != ImpairmentDecision::kNoBit) sender.count(LinkCounter::kWireCorrupted);
      reflections[count++] = {packet, way.at_us, way.corrupt_bit, false};
      if (way.copy_at_us == ImpairmentDecision::kNever) continue;
      reflections[count++] = {packet, way.copy_at_us, way.corrupt_bit, true};
    }
  }
  send_back(sender, table, {reflections.data(), count});
}

// Neighbours from the same source go back together.
void MemMirror::send_back(const MemSender& sender, const MemTable& table,
                          std::span<const MemReflection> packets) const {
  while (!packets.empty()) {
    const auto source = mem_source(packets.front().packet->bytes);
    size_t count = 1;
    while (count < packets.size() &&
           std::ranges::equal(source, mem_source(packets[count].packet->bytes))) {
      ++count;
    }
    // Never from mirror to mirror: that would go on for ever.
    MemPlug* back =
        source.empty() ? nullptr : table.find(source.size() == 4 ? 4 : 6, source.data());
    if (back == nullptr || !back->reflect(sender, number_, packets.first(count))) {
      for (const MemReflection& reflection : packets.first(count)) {
        reflection.packet->result = LinkCounter::kTxDroppedNoRoute;
      }
    }
    packets = packets.subspan(count);
  }
}

void swap_ends(std::span<uint8_t> packet) {
  const auto swap = [&](size_t a, size_t b, size_t bytes) {
    std::ranges::swap_ranges(packet.subspan(a, bytes), packet.subspan(b, bytes));
  };
  size_t upper = 0;
  uint8_t protocol = 0;
  if (const auto four = wire::Ipv4View::parse(packet)) {
    swap(wire::ipv4_field::kSource, wire::ipv4_field::kDestination, wire::Ipv4View::kAddressBytes);
    if ((four->fragment_word() & wire::Ipv4View::kFragmentOffsetMask) == 0) {
      protocol = four->protocol();
    }
    upper = four->header_bytes();
  } else if (const auto six = wire::Ipv6View::parse(packet)) {
    swap(wire::ipv6_field::kSource, wire::ipv6_field::kDestination, wire::Ipv6View::kAddressBytes);
    protocol = six->next_header();
    upper = wire::Ipv6View::kHeaderBytes;
  }
  if (protocol == wire::ip_protocol::kUdp && upper + wire::UdpView::kHeaderBytes <= packet.size()) {
    swap(upper + wire::udp_field::kSourcePort, upper + wire::udp_field::kDestinationPort, 2);
  }
}

}  // namespace apo
