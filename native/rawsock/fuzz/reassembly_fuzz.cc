// Any sequence of fragments, described by four bytes each (or given as they are), in little memory
// and with time going by: every fragment is counted once, bounds hold, and what comes out is a valid
// packet made of the bytes that went in.
#include <array>
#include <vector>

#include "input_harness.h"
#include "ip/reassembly.h"

namespace {

using namespace apo;
using fuzz::require;

constexpr ReassemblyLimits kLimits = {.datagrams = 6,
                                      .bytes = 24 * Reassembler::kBlockBytes,
                                      .fragments_per_datagram = 8,
                                      .datagrams_per_source = 3,
                                      .bytes_per_source = 12 * Reassembler::kBlockBytes};
constexpr uint8_t kForged = 0x80;

uint8_t content(size_t offset) { return static_cast<uint8_t>((offset * 7 + offset / 256) & 0x7f); }

// One of a few datagrams: family, sender, identification; offset, length; protocol, ECN, options.
std::vector<uint8_t> describe(const uint8_t* words) {
  const bool six = (words[0] & 1) != 0;
  const bool more = (words[0] & 2) != 0;
  const bool forged = (words[0] & 4) != 0;
  const bool options = (words[0] & 8) != 0;
  const uint8_t sender = words[0] >> 4 & 3;
  const uint8_t identification = words[0] >> 6;
  const size_t offset = (words[3] & 0x80) != 0 ? 8u * (0x1f00 + words[1]) : 8u * words[1];
  const size_t length = (words[2] & 0x80) != 0 ? words[2] & 0x7f : 8u * words[2];
  static constexpr uint8_t kProtocols[] = {17, 6, 58, 60};
  const uint8_t protocol = kProtocols[words[3] & 3];
  const uint8_t ecn = words[3] >> 2 & 3;

  std::vector<uint8_t> packet(six ? 48 : 20);
  if (options) packet.resize(packet.size() + (six ? 8 : 4));
  const size_t header_bytes = packet.size();
  packet.resize(header_bytes + length);
  for (size_t i = 0; i < length; ++i) {
    packet[header_bytes + i] = static_cast<uint8_t>(content(offset + i) | (forged ? kForged : 0));
  }
  if (!six) {
    packet[0] = static_cast<uint8_t>(0x40 | header_bytes / 4);
    packet[1] = ecn;
    wire::store16(&packet[2], static_cast<uint32_t>(packet.size()));
    packet[5] = identification;
    wire::store16(&packet[6], static_cast<uint32_t>(offset / 8) | (more ? 0x2000u : 0u));
    packet[9] = protocol;
    std::memcpy(&packet[12], fuzz::kPeer4, 4);
    packet[15] = sender;
    std::memcpy(&packet[16], fuzz::kOwn4, 4);
    return packet;
  }
  packet[0] = 0x60;
  packet[1] = static_cast<uint8_t>(ecn << 4);
  wire::store16(&packet[4], static_cast<uint32_t>(packet.size() - 40));
  packet[6] = options ? 0 : 44;
  std::memcpy(&packet[8], fuzz::kPeer6, 16);
  packet[15] = sender;
  std::memcpy(&packet[24], fuzz::kOwn6, 16);
  if (options) packet[40] = 44;
  uint8_t* header = &packet[header_bytes - 8];
  header[0] = protocol;
  wire::store16(header + 2, static_cast<uint32_t>(offset) | (more ? 1 : 0));
  header[7] = identification;
  return packet;
}

void check_datagram(std::span<const uint8_t> datagram, bool described) {
  const bool six = datagram[0] >> 4 == 6;
  if (six) {
    const auto ip = wire::Ipv6View::parse(datagram);
    require(ip && ip->total_length() == datagram.size());
  } else {
    const auto ip = wire::Ipv4View::parse(datagram);
    require(ip && ip->total_length() == datagram.size() && !ip->is_fragment());
    require(wire::checksum_is_valid(wire::checksum_add(0, datagram.data(), ip->header_bytes())));
  }
  if (!described) return;
  size_t header_bytes = six ? 40 : (datagram[0] & 15u) * 4;
  if (six && datagram[6] == 0) header_bytes = 48;
  for (size_t at = header_bytes; at < datagram.size(); ++at) {
    require((datagram[at] & ~kForged) == content(at - header_bytes));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::array<uint64_t, kLinkCounters> cells{};
  Reassembler reassembler({1, 2}, LinkCounters(cells), kLimits);
  uint64_t given = 0, now_us = 0;
  bool all_described = true;
  const auto check_sums = [&] {
    uint64_t counted = reassembler.waiting_fragments();
    for (const uint64_t cell : cells) counted += cell;
    require(counted == given);
    require(reassembler.waiting_datagrams() <= kLimits.datagrams);
    require(reassembler.used_bytes() <= kLimits.bytes);
    require((reassembler.used_bytes() == 0) == (reassembler.waiting_fragments() == 0));
    require((reassembler.next_deadline_us() == UINT64_MAX) ==
            (reassembler.waiting_datagrams() == 0));
  };
  while (size >= 4) {
    const bool raw = (data[3] & 0x40) != 0;
    now_us += (data[3] & 0x20) != 0 ? 20'000'000 : 1;
    std::span<const uint8_t> quoted;
    while (reassembler.expire(now_us, quoted)) {
      static uint8_t error[1500];
      if (!quoted.empty()) (void)build_icmp_error({}, quoted, error);
      check_sums();
    }
    std::vector<uint8_t> packet;
    if (raw) {
      const size_t length = std::min<size_t>(size - 4, data[1] | (data[2] & 1) << 8);
      packet.assign(data + 4, data + 4 + length);
      data += length;
      size -= length;
      all_described = false;
    } else {
      packet = describe(data);
    }
    data += 4;
    size -= 4;
    const auto result = reassembler.add(packet, now_us);
    if (result.outcome != Reassembler::Outcome::kNotFragment) ++given;
    if (result.outcome == Reassembler::Outcome::kComplete) {
      check_datagram(result.datagram, all_described);
    }
    check_sums();
  }
  reassembler.clear();
  check_sums();
  require(reassembler.waiting_datagrams() == 0 && reassembler.used_bytes() == 0);
  return 0;
}
