// ARP for IPv4 over Ethernet (RFC 826): a checked view of a message as plain values, and its
// builder. What is done about a message (RFC 5227) is station.cc's matter.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "ethernet/ethernet.h"
#include "ip/ip_address.h"

namespace apo {

struct ArpMessage {
  static constexpr size_t kBytes = 28;
  static constexpr uint16_t kRequest = 1;
  static constexpr uint16_t kReply = 2;

  uint16_t operation = kRequest;
  MacAddress sender_mac;
  IpAddress sender;  // 0.0.0.0 in a probe (RFC 5227 1.1)
  MacAddress target_mac;
  IpAddress target;

  // Somebody asks whether anybody has `target` before taking it.
  [[nodiscard]] bool is_probe() const {
    return operation == kRequest && sender.bytes == IpAddress{}.bytes;
  }
  // Says something about the sender that nobody asked for.
  [[nodiscard]] bool is_announcement() const { return sender == target; }

  // nullopt: short, another hardware or protocol, another operation, or a sender that nobody may
  // be (a group or zero hardware address; a multicast, broadcast or loopback address).
  static std::optional<ArpMessage> parse(std::span<const uint8_t> payload);
  // Writes `kBytes` bytes.
  void write(uint8_t* out) const;
};

}  // namespace apo
