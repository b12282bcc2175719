// The packets that the native thread sends of its own accord: echo replies, ICMP errors of both
// families and TCP resets; and the budget that keeps them from being an amplifier or an oracle.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "ip/ip_input.h"
#include "ip/steer_hash.h"
#include "util/fifo_table.h"

namespace apo {

// Builds the reply to an echo request that `check_input` accepted. Returns its length, or 0 when
// `out` is too small for it. `request` is the whole packet that the answer's pointers point into.
[[nodiscard]] size_t build_echo_reply(const InputPacket& input, std::span<const uint8_t> request,
                                      std::span<uint8_t> out);

// The same in the request's own memory: the reply begins where its headers now end up, later than
// the request did when that had options or extension headers. `input`'s pointers are stale then.
[[nodiscard]] std::span<uint8_t> build_echo_reply_in_place(const InputPacket& input,
                                                           std::span<uint8_t> request);

// What an error says; the numbers of both families are in one table in icmp_output.cc.
enum class IcmpErrorKind : uint8_t {
  kNoRoute,
  kHostUnreachable,
  kProtocolUnreachable,  // value on IPv6: where the next-header field lies
  kPortUnreachable,
  kProhibited,
  kPacketTooBig,  // value: the MTU
  kHopLimitExceeded,
  kReassemblyTimeExceeded,
  kBadHeaderField,         // value: where it lies, from the IP header on
  kBadOption,              // value: likewise
  kIncompleteHeaderChain,  // RFC 7112
};
struct IcmpError {
  IcmpErrorKind kind = IcmpErrorKind::kPortUnreachable;
  uint32_t value = 0;
};

// Builds an error about `offender`, any packet whose length is right, quoting as much of it as the
// standards let fit: 576 bytes in all on IPv4 (RFC 1812 4.3.2.3), 1,280 on IPv6 (RFC 4443 2.4 c).
// It comes from `from` (4 or 16 bytes), or from the offender's destination when that is null.
//
// 0: `out` is too small, or no error may be sent (RFC 1122 3.2.2, RFC 1812 4.3.2.7, RFC 4443 2.4 e):
// the offender is an ICMP error (or may be one: its type lies in another fragment), is a fragment
// other than the first (IPv4), went to a multicast or broadcast address (but for "packet too big"
// and "bad option" on IPv6, which then need `from`), or came from an address that is nobody's. That
// it came as a link-layer broadcast is for the link to know.
[[nodiscard]] size_t build_icmp_error(const IcmpError& error, std::span<const uint8_t> offender,
                                      std::span<uint8_t> out, const uint8_t* from = nullptr);

// "Port unreachable" about a packet that `check_input` accepted.
[[nodiscard]] size_t build_port_unreachable(const InputPacket& input,
                                            std::span<const uint8_t> offender,
                                            std::span<uint8_t> out);

// Builds the reset that answers a TCP segment to a connection which does not exist (RFC 9293
// 3.10.7.1). `input` is what `check_input` said of `packet`. 0: the segment is a reset itself, is
// malformed, went to or came from a group, or `out` is too small.
[[nodiscard]] size_t build_tcp_reset(const InputPacket& input, std::span<const uint8_t> packet,
                                     std::span<uint8_t> out);

// How many errors and resets each destination may be sent: a token bucket for each address. There is
// no common one, since whoever can drain that and sees his own errors stop learns what was answered
// to others (SAD DNS, CVE-2020-25705). For the same reason the size and the refill of a bucket are
// drawn anew, by keyed hash, whenever it is full: nobody can count on them.
//
// The table is bounded; the destination that came first is forgotten first. A new one begins with a
// full bucket: to use that, an attacker needs as many addresses as he wants errors for, which then
// go to as many.
class ErrorBudget {
 public:
  static constexpr size_t kDestinations = 1024;
  static constexpr uint32_t kBurstMin = 16;
  static constexpr uint32_t kBurstMax = 47;
  static constexpr uint32_t kIntervalMinUs = 8'000;  // one more error each: 60 to 125 a second
  static constexpr uint32_t kIntervalMaxUs = 16'383;

  explicit ErrorBudget(SteerKey key) : key_(key), buckets_(kDestinations) {}

  // Takes one token of the destination; false when it has none. `destination` has 4 or 16 bytes.
  [[nodiscard]] bool take(uint8_t version, const uint8_t* destination, uint64_t now_us);

 private:
  struct Bucket {
    uint64_t refilled_us = 0;
    uint32_t tokens = 0;
    uint32_t burst = 0;
    uint32_t interval_us = 0;
  };

  void draw(Bucket& bucket, uint32_t address_hash, uint64_t now_us);

  SteerKey key_;
  FifoTable<IpAddress, Bucket> buckets_;
  uint32_t draws_ = 0;
};

}  // namespace apo
