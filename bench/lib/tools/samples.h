// What a sample receiver learns from each RTP packet: delay since the publisher stamped it, gaps,
// reordering.
//
// Shared by the UDP sink and the RTSP readers. The publisher writes kStampMagic and CLOCK_REALTIME
// nanoseconds into every FU-A payload at stamp_offset; other packets count for sequence only.
#ifndef BENCH_SAMPLES_H_
#define BENCH_SAMPLES_H_

#include <stdint.h>

enum { kStampOffset = 14, kStampBytes = 12, kMaxDelays = 1 << 17 };
#define kStampMagic 0x42454e43u

struct sample {
  uint64_t packets;
  uint64_t gaps;       // sequence numbers that were skipped
  uint64_t reordered;  // arrived behind a later one, or twice
  int last_seq;        // -1: none yet
};

// Delays of all samples of this process, microseconds, in the order of arrival.
struct delays {
  int32_t us[kMaxDelays];
  int count;
};

int64_t realtime_ns(void);
void sample_reset(struct sample* sample);
void sample_packet(struct sample* sample, struct delays* delays, const uint8_t* rtp, int length,
                   int64_t arrival_ns);
// Prints `"samples":{...}` (no newline) and leaves the counters alone.
void samples_print(const struct sample* samples, int count, const struct delays* delays);

#endif  // BENCH_SAMPLES_H_
