// A packet counter at tcx ingress: counts UDP packets by destination port and drops them before the
// stack.
//
// Part of the bench's sink. Knows nothing of RTP or of who sends. The program is attached by a BPF
// link, so it goes when the process does.
#ifndef BENCH_TCX_COUNTER_H_
#define BENCH_TCX_COUNTER_H_

#include <stdint.h>

// One entry a destination port, shared with the BPF program (eight-byte words, same layout on both
// sides).
struct tcx_port {
  uint64_t packets;  // wire packets: a GSO super-packet counts as its segments
  uint64_t skbs;     // what the kernel carried: a GSO super-packet counts once
  uint64_t bytes;    // of these, from the link's header on
  uint64_t pass;     // nonzero: count, then let it through (a sample receiver listens here)
};

// Counts ports first_port..first_port+count-1 on `interface`, whose packets have a link header of
// `link_bytes` (14 of Ethernet, 0 of TUN). Returns the entries (mapped, live), or NULL with a reason in
// `error`.
struct tcx_port* tcx_counter_start(const char* interface, int link_bytes, int first_port, int count,
                                   char* error, int error_size);

#endif  // BENCH_TCX_COUNTER_H_
