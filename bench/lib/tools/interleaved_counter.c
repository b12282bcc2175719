// See interleaved_counter.h.
#include "interleaved_counter.h"

#include <string.h>

static const uint32_t kBlankLine = 0x0d0a0d0a;

static void packet_complete(struct interleaved_counter* counter, struct delays* delays) {
  counter->have = 0;
  if (counter->header[1] != 0) return;
  counter->packets++;
  if (counter->sample == NULL) return;
  sample_packet(counter->sample, delays, counter->head, counter->head_have, realtime_ns());
}

static void take_payload(struct interleaved_counter* counter, const uint8_t* bytes, int length) {
  counter->left -= length;
  if (counter->sample == NULL || counter->head_have == kHeadBytes) return;
  const int room = kHeadBytes - counter->head_have;
  const int taken = length < room ? length : room;
  memcpy(counter->head + counter->head_have, bytes, (size_t)taken);
  counter->head_have += taken;
}

// One byte outside of a payload: of a frame's header, of a reply, or neither.
static void take_byte(struct interleaved_counter* counter, uint8_t byte) {
  if (counter->in_reply) {
    counter->reply_tail = counter->reply_tail << 8 | byte;
    if (counter->reply_tail == kBlankLine) counter->in_reply = 0;
    return;
  }
  if (counter->have == 0 && byte != '$') {
    if (byte == 'R') {
      counter->in_reply = 1;
      counter->reply_tail = byte;
    } else {
      counter->garbage++;
    }
    return;
  }
  counter->header[counter->have++] = byte;
  if (counter->have < 4) return;
  counter->left = counter->header[2] << 8 | counter->header[3];
  counter->head_have = 0;
}

void interleaved_count(struct interleaved_counter* counter, const uint8_t* bytes, int length,
                       struct delays* delays) {
  int at = 0;
  while (at < length) {
    if (counter->have < 4) {
      take_byte(counter, bytes[at++]);
    } else {
      const int here = length - at < counter->left ? length - at : counter->left;
      take_payload(counter, bytes + at, here);
      at += here;
    }
    if (counter->have == 4 && counter->left == 0) packet_complete(counter, delays);
  }
}
