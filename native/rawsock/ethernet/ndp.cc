#include "ethernet/ndp.h"

#include "wire/checksum.h"
#include "wire/icmp.h"
#include "wire/ipv6.h"

namespace apo {
namespace {

constexpr size_t kHeader = wire::Ipv6View::kHeaderBytes;
constexpr uint8_t kHopLimit = 255;  // nobody behind a router can send that
constexpr size_t kFlags = 4;        // of NA
constexpr size_t kTarget = 8;       // of NS and NA
constexpr size_t kRouterLifetime = 6;
constexpr size_t kOptionUnit = 8;

constexpr uint8_t kSourceLinkLayer = 1;
constexpr uint8_t kTargetLinkLayer = 2;
constexpr uint8_t kPrefixInformation = 3;
constexpr uint8_t kMtu = 5;

constexpr uint8_t kFlagRouter = 0x80;
constexpr uint8_t kFlagSolicited = 0x40;
constexpr uint8_t kFlagOverride = 0x20;
constexpr uint8_t kFlagOnLink = 0x80;

// Where a message's options begin, from the ICMPv6 header on.
size_t fixed_bytes(NdpType type) {
  switch (type) {
    case NdpType::kRouterSolicitation:
      return 8;
    case NdpType::kRouterAdvertisement:
      return 16;
    case NdpType::kRedirect:
      return 40;
    default:
      return 24;
  }
}

bool is_link_local(const IpAddress& address) {
  return address.bytes[0] == 0xfe && (address.bytes[1] & 0xc0) == 0x80;
}

bool is_solicited_node(const IpAddress& address) { return address == solicited_node(address); }

void read_prefix(NdpMessage& message, const uint8_t* option) {
  const uint8_t bits = option[2];
  if (bits > 128 || (option[3] & kFlagOnLink) == 0) return;
  if (message.prefix_count == NdpMessage::kPrefixesMax) return;
  OnLinkPrefix& entry = message.prefixes[message.prefix_count];
  entry.prefix = {IpAddress::from_bytes(6, option + 16), bits};
  entry.valid_seconds = wire::load32(option + 4);
  // fe80::/10 is on every link and nobody's to give or to take (RFC 4861 6.3.4).
  if (bits == 0 || is_multicast(entry.prefix.address) || is_link_local(entry.prefix.address))
    return;
  ++message.prefix_count;
}

// False: an option that breaks the message. Unknown ones are skipped.
bool read_options(NdpMessage& message, std::span<const uint8_t> options) {
  const bool about_target = message.type == NdpType::kNeighbourAdvertisement;
  const bool from_router = message.type == NdpType::kRouterAdvertisement;
  while (!options.empty()) {
    if (options.size() < kOptionUnit) return false;
    const size_t length = options[1] * kOptionUnit;
    if (length == 0 || length > options.size()) return false;
    const uint8_t* option = options.data();
    if (option[0] == (about_target ? kTargetLinkLayer : kSourceLinkLayer)) {
      const MacAddress mac = MacAddress::from_bytes(option + 2);
      if (length != kOptionUnit || !mac.is_station()) return false;
      message.link_layer = mac;
    } else if (from_router && option[0] == kMtu) {
      if (length != kOptionUnit) return false;
      message.mtu = wire::load32(option + 4);
    } else if (from_router && option[0] == kPrefixInformation) {
      if (length != 4 * kOptionUnit) return false;
      read_prefix(message, option);
    }
    options = options.subspan(length);
  }
  return true;
}

bool fields_fit(const NdpMessage& message) {
  const bool nobody = message.from_nobody();
  if (is_multicast(message.source)) return false;
  switch (message.type) {
    case NdpType::kNeighbourSolicitation:
      if (is_multicast(message.target)) return false;
      return !nobody || (is_solicited_node(message.destination) && !message.link_layer);
    case NdpType::kNeighbourAdvertisement:
      if (nobody || is_multicast(message.target)) return false;
      return !(message.solicited && is_multicast(message.destination));
    case NdpType::kRouterSolicitation:
      return !nobody || !message.link_layer;
    case NdpType::kRouterAdvertisement:
    case NdpType::kRedirect:
      return is_link_local(message.source);
  }
  return false;
}

}  // namespace

bool NdpMessage::recognise(std::span<const uint8_t> packet) {
  return packet.size() > kHeader && packet[0] >> 4 == 6 &&
         packet[wire::ipv6_field::kNextHeader] == wire::ip_protocol::kIcmpv6 &&
         packet[kHeader] >= 133 && packet[kHeader] <= 137;
}

std::optional<NdpMessage> NdpMessage::parse(std::span<const uint8_t> packet) {
  const auto ip = wire::Ipv6View::parse(packet);
  if (!ip || !recognise(packet) || ip->hop_limit() != kHopLimit) return std::nullopt;
  const std::span<const uint8_t> icmp = ip->payload();
  NdpMessage message;
  if (icmp.empty()) return std::nullopt;
  message.type = static_cast<NdpType>(icmp[wire::icmp_field::kType]);
  const size_t fixed = fixed_bytes(message.type);
  if (icmp.size() < fixed || icmp[wire::icmp_field::kCode] != 0) return std::nullopt;
  const wire::Sum sum = wire::checksum_pseudo_header(
      ip->source(), 16, static_cast<uint32_t>(icmp.size()), wire::ip_protocol::kIcmpv6);
  if (!wire::checksum_is_valid(wire::checksum_add(sum, icmp.data(), icmp.size()))) {
    return std::nullopt;
  }
  message.source = IpAddress::from_bytes(6, ip->source());
  message.destination = IpAddress::from_bytes(6, ip->destination());
  if (fixed == 24) message.target = IpAddress::from_bytes(6, icmp.data() + kTarget);
  if (message.type == NdpType::kNeighbourAdvertisement) {
    message.router = (icmp[kFlags] & kFlagRouter) != 0;
    message.solicited = (icmp[kFlags] & kFlagSolicited) != 0;
    message.override = (icmp[kFlags] & kFlagOverride) != 0;
  } else if (message.type == NdpType::kRouterAdvertisement) {
    message.router_seconds = wire::load16(icmp.data() + kRouterLifetime);
  }
  if (!read_options(message, icmp.subspan(fixed)) || !fields_fit(message)) return std::nullopt;
  return message;
}

size_t NdpMessage::write(uint8_t* out) const {
  const size_t fixed = fixed_bytes(type);
  const size_t upper = fixed + (link_layer ? kOptionUnit : 0);
  std::memset(out, 0, kHeader + upper);
  out[0] = 0x60;
  wire::store16(out + wire::ipv6_field::kPayloadLength, static_cast<uint32_t>(upper));
  out[wire::ipv6_field::kNextHeader] = wire::ip_protocol::kIcmpv6;
  out[wire::ipv6_field::kHopLimit] = kHopLimit;
  std::memcpy(out + wire::ipv6_field::kSource, source.bytes.data(), 16);
  std::memcpy(out + wire::ipv6_field::kDestination, destination.bytes.data(), 16);
  uint8_t* icmp = out + kHeader;
  icmp[wire::icmp_field::kType] = static_cast<uint8_t>(type);
  if (fixed == 24) std::memcpy(icmp + kTarget, target.bytes.data(), 16);
  if (type == NdpType::kNeighbourAdvertisement) {
    icmp[kFlags] =
        static_cast<uint8_t>((router ? kFlagRouter : 0) | (solicited ? kFlagSolicited : 0) |
                             (override ? kFlagOverride : 0));
  }
  if (link_layer) {
    uint8_t* option = icmp + fixed;
    option[0] = type == NdpType::kNeighbourAdvertisement ? kTargetLinkLayer : kSourceLinkLayer;
    option[1] = 1;
    std::memcpy(option + 2, link_layer->bytes.data(), MacAddress::kBytes);
  }
  const wire::Sum sum =
      wire::checksum_pseudo_header(out + wire::ipv6_field::kSource, 16,
                                   static_cast<uint32_t>(upper), wire::ip_protocol::kIcmpv6);
  wire::store16(icmp + wire::icmp_field::kChecksum,
                wire::checksum_finish(wire::checksum_add(sum, icmp, upper)));
  return kHeader + upper;
}

}  // namespace apo
