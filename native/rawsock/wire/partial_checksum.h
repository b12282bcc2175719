// Finds a checksum that was left to hardware which never came: on a packet of the same machine (the
// peer of a veth pair, a container, a virtual machine) the field holds the pseudo header's sum alone.
// Links whose kernel interface has no word for that (AF_XDP) tell it from the field's value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "wire/checksum.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace apo::wire {

// True: UDP or TCP, no fragment, and the field is exactly the pseudo header's sum, uncomplemented.
// One packet in 65,536 whose checksum is right looks so as well, and one in 65,536 that is damaged,
// which is as many as a checksum lets through.
[[nodiscard]] inline bool has_partial_checksum(std::span<const uint8_t> packet) {
  const uint8_t* addresses = nullptr;
  size_t address_bytes = 0;
  uint8_t protocol = 0;
  std::span<const uint8_t> upper;
  if (const auto four = Ipv4View::parse(packet)) {
    if (four->is_fragment()) return false;
    addresses = four->source();
    address_bytes = Ipv4View::kAddressBytes;
    protocol = four->protocol();
    upper = four->payload();
  } else if (const auto six = Ipv6View::parse(packet)) {
    const Ipv6UpperLayer found = ipv6_upper_layer(*six);
    if (found.state != Ipv6UpperLayer::State::kFound) return false;
    addresses = six->source();
    address_bytes = Ipv6View::kAddressBytes;
    protocol = found.protocol;
    upper = six->bytes().subspan(found.offset);
  } else {
    return false;
  }
  size_t field = 0;
  if (protocol == ip_protocol::kUdp) {
    field = 6;
  } else if (protocol == ip_protocol::kTcp) {
    field = 16;
  } else {
    return false;
  }
  if (upper.size() < field + 2) return false;
  const Sum sum = checksum_pseudo_header(addresses, address_bytes,
                                         static_cast<uint32_t>(upper.size()), protocol);
  const auto folded = static_cast<uint16_t>(~checksum_finish(sum));
  return load16(upper.data() + field) == folded;
}

}  // namespace apo::wire
