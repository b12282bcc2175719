// Counts the RTP packets of an interleaved (RFC 2326 10.12) byte stream, without keeping it.
//
// One per reader on TCP. Knows nothing of sockets. Replies between frames are skipped up to their
// blank line.
#ifndef BENCH_INTERLEAVED_COUNTER_H_
#define BENCH_INTERLEAVED_COUNTER_H_

#include <stdint.h>

#include "samples.h"

enum { kHeadBytes = 32 };

struct interleaved_counter {
  uint64_t packets;  // of channel 0
  uint64_t garbage;  // bytes that were neither a frame nor a reply
  uint8_t header[4];
  int have;                  // bytes of `header` so far
  int left;                  // bytes of the current packet still to come
  uint8_t head[kHeadBytes];  // the packet's first bytes, for a sample
  int head_have;
  uint32_t reply_tail;  // the last four bytes of a reply
  int in_reply;
  struct sample* sample;  // NULL: count only
};

void interleaved_count(struct interleaved_counter* counter, const uint8_t* bytes, int length,
                       struct delays* delays);

#endif  // BENCH_INTERLEAVED_COUNTER_H_
