// Turns what a worker put into a frame into an IP packet ready for the wire: the rest of the IP
// header, lengths and checksums. Nothing in the descriptor is believed: workers write it into
// shared memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "ip/ip_address.h"
#include "thread/link_counters.h"
#include "wire/packet_descriptor.h"

namespace apo {

inline constexpr uint8_t kDefaultHopLimit = 64;

struct OutputPacket {
  bool ready = false;
  LinkCounter drop_reason = LinkCounter::kTxDroppedDescriptor;
  std::span<uint8_t> bytes;  // the whole IP packet, inside the frame
  Offload offload;           // of a super-packet: its checksum is partial
  // A datagram that may go in pieces when the path is narrower than it is; of TCP, that is for the
  // sender to do better.
  bool may_fragment = false;
};

// `frame` is the whole frame that the descriptor names. Speaks UDP, TCP and ICMP echo requests.
[[nodiscard]] OutputPacket finish_output(const PacketDescriptor& descriptor,
                                         std::span<uint8_t> frame, const AddressSet& own);

struct IpHeader {
  uint8_t version = 4;
  uint8_t protocol = 0;
  uint8_t hop_limit = kDefaultHopLimit;
  uint8_t traffic_class = 0;
  uint32_t flow_label = 0;
  size_t upper_bytes = 0;
};

[[nodiscard]] constexpr size_t ip_header_bytes(uint8_t version) { return version == 4 ? 20 : 40; }

// Writes every field but the two addresses, which are in place already. IPv4: don't-fragment, and
// so an identification of 0 (RFC 6864 4.1).
void write_ip_header(uint8_t* at, const IpHeader& header);

// Fills in the checksum of an upper layer that lies right behind a header without extensions or
// options.
void write_upper_checksum(uint8_t* ip, const IpHeader& header);

// The pseudo header's sum alone, for whoever completes it later (ChecksumState::kPartial).
void write_partial_checksum(uint8_t* ip, const IpHeader& header);

}  // namespace apo
