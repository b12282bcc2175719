// Which TCP headers nobody sends in good faith: the combinations of flags that port scanners and
// stack fingerprinters use, port 0, and lengths that lie. Pure; the input check calls it before a
// segment may reach a worker. Addresses (land, our own as the source) are the input check's matter.
//
// What is only unusual passes: data on a SYN (RFC 7413), an urgent pointer of any value, the
// reserved bits (RFC 9293 3.1: ignored by receivers), the ECN flags (RFC 3168).
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "thread/link_counters.h"
#include "wire/tcp.h"

namespace apo {

// Options must fill their room: no length below two or beyond the header (RFC 9293 3.1, MUST-7).
inline bool tcp_options_are_well_formed(std::span<const uint8_t> options) {
  size_t at = 0;
  while (at < options.size()) {
    const uint8_t kind = options[at];
    if (kind == wire::tcp_option::kEnd) return true;
    if (kind == wire::tcp_option::kNop) {
      ++at;
      continue;
    }
    if (options.size() - at < 2) return false;
    const size_t length = options[at + 1];
    if (length < 2 || length > options.size() - at) return false;
    at += length;
  }
  return true;
}

// kRxPackets: nothing against these flags. Else the reason to drop the segment.
inline LinkCounter check_tcp_flags(uint8_t flags) {
  using namespace wire::tcp_flag;
  constexpr uint8_t kTree = kFin | kPsh | kUrg;
  constexpr uint8_t kAll = kTree | kSyn | kRst | kAck;
  const uint8_t given = flags & kAll;
  // One of these four says what a segment is; without any it is nothing (RFC 9293 3.10.7: dropped in
  // every state), and only scanners send it.
  if ((given & (kSyn | kRst | kAck | kFin)) == 0) return LinkCounter::kRxDroppedTcpNull;
  if (given == kTree || given == kAll) return LinkCounter::kRxDroppedTcpXmas;
  if ((given & (kSyn | kFin)) == (kSyn | kFin)) return LinkCounter::kRxDroppedTcpSynFin;
  if ((given & (kSyn | kRst)) == (kSyn | kRst)) return LinkCounter::kRxDroppedTcpSynRst;
  // A FIN belongs to a connection, where every segment but the first has ACK.
  if ((given & (kFin | kAck)) == kFin) return LinkCounter::kRxDroppedTcpFin;
  return LinkCounter::kRxPackets;
}

// kRxPackets: acceptable but for its checksum, which is the caller's matter. `tcp` is what
// `TcpView::parse` returned for the IP payload.
[[nodiscard]] inline LinkCounter check_tcp_header(const std::optional<wire::TcpView>& tcp) {
  if (!tcp) return LinkCounter::kRxDroppedTcpLength;
  const LinkCounter flags = check_tcp_flags(tcp->flags());
  if (flags != LinkCounter::kRxPackets) return flags;
  if (tcp->source_port() == 0 || tcp->destination_port() == 0) {
    return LinkCounter::kRxDroppedTcpPort;
  }
  if (!tcp_options_are_well_formed(tcp->options())) return LinkCounter::kRxDroppedTcpOptions;
  return LinkCounter::kRxPackets;
}

}  // namespace apo
