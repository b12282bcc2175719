#include "ethernet/arp.h"

namespace apo {
namespace {

constexpr size_t kHardware = 0;
constexpr size_t kProtocol = 2;
constexpr size_t kLengths = 4;
constexpr size_t kOperation = 6;
constexpr size_t kSenderMac = 8;
constexpr size_t kSender = 14;
constexpr size_t kTargetMac = 18;
constexpr size_t kTarget = 24;

constexpr uint16_t kEthernet = 1;
constexpr uint16_t kAddressLengths = 0x0604;

bool may_be_sender(const uint8_t* ip) { return ip[0] < 224 && ip[0] != 127; }

}  // namespace

std::optional<ArpMessage> ArpMessage::parse(std::span<const uint8_t> payload) {
  if (payload.size() < kBytes) return std::nullopt;
  const uint8_t* at = payload.data();
  if (wire::load16(at + kHardware) != kEthernet) return std::nullopt;
  if (wire::load16(at + kProtocol) != ethertype::kIpv4) return std::nullopt;
  if (wire::load16(at + kLengths) != kAddressLengths) return std::nullopt;
  ArpMessage message;
  message.operation = wire::load16(at + kOperation);
  if (message.operation != kRequest && message.operation != kReply) return std::nullopt;
  message.sender_mac = MacAddress::from_bytes(at + kSenderMac);
  message.sender = IpAddress::from_bytes(4, at + kSender);
  message.target_mac = MacAddress::from_bytes(at + kTargetMac);
  message.target = IpAddress::from_bytes(4, at + kTarget);
  if (!message.sender_mac.is_station() || !may_be_sender(at + kSender)) return std::nullopt;
  return message;
}

void ArpMessage::write(uint8_t* out) const {
  wire::store16(out + kHardware, kEthernet);
  wire::store16(out + kProtocol, ethertype::kIpv4);
  wire::store16(out + kLengths, kAddressLengths);
  wire::store16(out + kOperation, operation);
  std::memcpy(out + kSenderMac, sender_mac.bytes.data(), MacAddress::kBytes);
  std::memcpy(out + kSender, sender.bytes.data(), 4);
  std::memcpy(out + kTargetMac, target_mac.bytes.data(), MacAddress::kBytes);
  std::memcpy(out + kTarget, target.bytes.data(), 4);
}

}  // namespace apo
