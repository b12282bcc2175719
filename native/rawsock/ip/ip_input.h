// Is this packet acceptable, and what is it? Every check that needs no state, for both IP versions,
// in one pure function: no clock, no ring, no allocation. The native thread acts on the answer; the
// fuzzers call it directly.
#pragma once

#include <cstdint>
#include <span>

#include "ip/group_membership.h"
#include "ip/ip_address.h"
#include "ip/steer_hash.h"
#include "thread/link_counters.h"
#include "wire/packet_descriptor.h"

namespace apo {

enum class InputKind : uint8_t {
  kDropped,
  kFragment,  // acceptable so far as its IP header goes: reassembly's matter
  kUdp,
  kTcp,
  kEchoRequest,
  kEchoReply,
  kIcmpError,
  kGroupQuery,  // a router asks which groups are wanted here: IGMP or MLD
};

struct InputPacket {
  InputKind kind = InputKind::kDropped;
  LinkCounter drop_reason = LinkCounter::kRxDroppedHeader;
  uint8_t version = 4;
  uint8_t protocol = 0;
  uint8_t hop_limit = 0;
  uint8_t traffic_class = 0;
  ChecksumState checksum_state = ChecksumState::kUnchecked;
  uint32_t length = 0;        // of the IP packet; what lies behind it is padding
  uint32_t upper_offset = 0;  // from the IP header's first byte
  uint32_t upper_length = 0;
  uint32_t next_header_offset = 0;  // of the field that names `protocol`, likewise
  uint32_t flow_label = 0;
  uint32_t icmp_type_code = 0;  // type << 8 | code
  bool to_group = false;        // of hosts, which we have joined
  const uint8_t* source = nullptr;
  const uint8_t* destination = nullptr;
  // The flow, seen from its packet's sender. An ICMP error's are those of the packet it quotes.
  const uint8_t* flow_source = nullptr;
  const uint8_t* flow_destination = nullptr;
  uint8_t flow_protocol = 0;
  uint16_t flow_source_port = 0;
  uint16_t flow_destination_port = 0;
  // Dropped for its quote (kRxDroppedIcmpQuote), which is of an echo reply of ours: no worker knows
  // of that, but what it says of the path is as good as any.
  bool quotes_echo_reply = false;

  [[nodiscard]] size_t address_bytes() const { return version == 4 ? 4 : 16; }
  [[nodiscard]] uint32_t steer(SteerKey key) const {
    return steer_hash(key, flow_source, flow_destination, address_bytes(), flow_source_port,
                      flow_destination_port, flow_protocol);
  }
};

// Pointers in the answer point into `bytes`. A partial checksum (`offload`) is not looked at. `looped`:
// the packet is from this runtime to itself, so its source may be our own. `groups`: what is accepted
// beside what is to `own`; null: nothing.
[[nodiscard]] InputPacket check_input(std::span<const uint8_t> bytes, const AddressSet& own,
                                      const Offload& offload = {}, bool looped = false,
                                      const GroupView* groups = nullptr);

}  // namespace apo
