// A station's link for tests: keeps the frames and packets that it is given, and counts.
#pragma once

#include <array>
#include <vector>

#include "ethernet/station.h"
#include "packet_builder.h"

namespace apo::test {

inline constexpr MacAddress kOwnMac{{2, 0, 0, 0, 0, 1}};
inline constexpr MacAddress kPeerMac{{2, 0, 0, 0, 0, 2}};
inline constexpr MacAddress kOtherMac{{2, 0, 0, 0, 0, 3}};
inline constexpr uint64_t kSecond = 1'000'000;

inline IpAddress ip4(uint8_t a, uint8_t b, uint8_t c, uint8_t d) {
  const uint8_t bytes[] = {a, b, c, d};
  return IpAddress::from_bytes(4, bytes);
}
// fd00::LAST, or with another first byte.
inline IpAddress ip6(uint8_t last, uint8_t first = 0xfd, uint8_t second = 0) {
  IpAddress address;
  address.version = 6;
  address.bytes[0] = first;
  address.bytes[1] = second;
  address.bytes[15] = last;
  return address;
}

class RecordingOutput final : public StationOutput {
 public:
  struct Sent {
    MacAddress to;
    Bytes packet;
  };

  void send_frame(std::span<const uint8_t> frame) override {
    frames.emplace_back(frame.begin(), frame.end());
  }
  void send_packet(const MacAddress& to, std::span<const uint8_t> packet,
                   const Offload& /*offload*/) override {
    packets.push_back({to, Bytes(packet.begin(), packet.end())});
  }
  void count(LinkCounter counter, uint64_t amount = 1) override {
    counts[static_cast<size_t>(counter)] += amount;
  }

  [[nodiscard]] uint64_t counted(LinkCounter counter) const {
    return counts[static_cast<size_t>(counter)];
  }

  std::vector<Bytes> frames;
  std::vector<Sent> packets;
  std::array<uint64_t, kLinkCounters> counts{};
};

inline StationConfig station_config() {
  StationConfig config;
  config.mac = kOwnMac;
  config.addresses.add({{ip4(10, 0, 0, 1), 24}});
  config.addresses.add({{ip6(1), 64}});
  config.key = {1, 2};
  return config;
}

inline Bytes arp_payload(const ArpMessage& message) {
  Bytes bytes(ArpMessage::kBytes);
  message.write(bytes.data());
  return bytes;
}

inline Bytes ndp_packet(const NdpMessage& message) {
  Bytes bytes(NdpMessage::kWrittenMax);
  bytes.resize(message.write(bytes.data()));
  return bytes;
}

// With the ICMPv6 checksum made right after `packet` was changed.
inline Bytes resummed(Bytes packet) {
  const Bytes upper(packet.begin() + 40, packet.end());
  Bytes cleared = upper;
  cleared[2] = cleared[3] = 0;
  wire::store16(&packet[42], upper_checksum(true, &packet[8], &packet[24], 58, cleared));
  return packet;
}

}  // namespace apo::test
