// See samples.h.
#define _GNU_SOURCE
#include "samples.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

int64_t realtime_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

void sample_reset(struct sample* sample) { *sample = (struct sample){.last_seq = -1}; }

void sample_packet(struct sample* sample, struct delays* delays, const uint8_t* rtp, int length,
                   int64_t arrival_ns) {
  if (length < 12) return;
  const int seq = rtp[2] << 8 | rtp[3];
  sample->packets++;
  if (sample->last_seq >= 0) {
    const int16_t step = (int16_t)(seq - sample->last_seq);
    if (step > 1) sample->gaps += (uint64_t)(step - 1);
    if (step <= 0) sample->reordered++;
    if (step > 0) sample->last_seq = seq;
  } else {
    sample->last_seq = seq;
  }
  uint32_t magic;
  int64_t sent_ns;
  if (length < kStampOffset + kStampBytes) return;
  memcpy(&magic, rtp + kStampOffset, sizeof(magic));
  memcpy(&sent_ns, rtp + kStampOffset + 4, sizeof(sent_ns));
  if (magic != kStampMagic || delays->count == kMaxDelays) return;
  delays->us[delays->count++] = (int32_t)((arrival_ns - sent_ns) / 1000);
}

void samples_print(const struct sample* samples, int count, const struct delays* delays) {
  uint64_t packets = 0, gaps = 0, reordered = 0;
  for (int i = 0; i < count; i++) {
    packets += samples[i].packets;
    gaps += samples[i].gaps;
    reordered += samples[i].reordered;
  }
  printf(
      "\"samples\":{\"receivers\":%d,\"packets\":%llu,\"gaps\":%llu,\"reordered\":%llu,"
      "\"delaysUs\":[",
      count, (unsigned long long)packets, (unsigned long long)gaps, (unsigned long long)reordered);
  for (int i = 0; i < delays->count; i++) printf(i ? ",%d" : "%d", delays->us[i]);
  printf("]}");
}
