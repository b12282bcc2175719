// See stream.h.
#include "stream.h"

#include <string.h>

#include "samples.h"

enum {
  kHeaderBytes = 12,
  kNalKey = 5,
  kNalPredicted = 1,
  kNalStapA = 24,
  kNalFuA = 28,
  kRefIdc = 0x60
};

// High profile 1280x720 and its picture parameters: parsers that look into them find them whole.
static const uint8_t kSps[] = {0x67, 0x64, 0x00, 0x1f, 0xac, 0xd9, 0x40, 0x50, 0x05,
                               0xbb, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00,
                               0x00, 0x03, 0x03, 0x20, 0xf1, 0x83, 0x19, 0x60};
static const uint8_t kPps[] = {0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0};

const char* stream_sdp(void) {
  return "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=bench\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"
         "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
         "a=fmtp:96 packetization-mode=1; "
         "sprop-parameter-sets=Z2QAH6zZQFAFuwEQAAADABAAAAMDIPGDGWA=,aOvjyyLA; "
         "profile-level-id=64001F\r\n"
         "a=control:streamid=0\r\n";
}

void stream_start(struct stream* stream, int kbit_per_second, int frames_per_second, int group) {
  *stream = (struct stream){.frames_per_second = frames_per_second,
                            .group = group,
                            .key_ratio = 3.5,
                            .random = 2463534242u,
                            .seq = 1000,
                            .ssrc = 0x0ba5eba1};
  const double group_bytes = kbit_per_second * 125.0 * group / frames_per_second;
  stream->predicted_bytes = (int)(group_bytes / (group - 1 + stream->key_ratio));
}

// xorshift, in [-1, 1).
static double next_random(struct stream* stream) {
  uint32_t x = stream->random;
  x ^= x << 13;
  x ^= x >> 17;
  x ^= x << 5;
  stream->random = x;
  return x / 2147483648.0 - 1.0;
}

static uint8_t* new_packet(struct stream* stream, uint32_t rtp_time, struct frame* frame,
                           int length) {
  uint8_t* rtp = frame->bytes[frame->packets] + kInterleavedBytes;
  frame->length[frame->packets++] = length;
  memset(rtp, 0, (size_t)length);
  rtp[0] = 0x80;
  rtp[1] = kPayloadType;
  rtp[2] = (uint8_t)(stream->seq >> 8);
  rtp[3] = (uint8_t)stream->seq;
  stream->seq++;
  for (int i = 0; i < 4; i++) {
    rtp[4 + i] = (uint8_t)(rtp_time >> (24 - 8 * i));
    rtp[8 + i] = (uint8_t)(stream->ssrc >> (24 - 8 * i));
  }
  return rtp;
}

static void add_parameter_sets(struct stream* stream, uint32_t rtp_time, struct frame* frame) {
  const int length = kHeaderBytes + 1 + 2 + (int)sizeof(kSps) + 2 + (int)sizeof(kPps);
  uint8_t* at = new_packet(stream, rtp_time, frame, length) + kHeaderBytes;
  *at++ = kRefIdc | kNalStapA;
  *at++ = 0;
  *at++ = sizeof(kSps);
  memcpy(at, kSps, sizeof(kSps));
  at += sizeof(kSps);
  *at++ = 0;
  *at++ = sizeof(kPps);
  memcpy(at, kPps, sizeof(kPps));
}

void stream_next(struct stream* stream, uint32_t rtp_time, struct frame* frame) {
  const int key = stream->frame++ % (uint32_t)stream->group == 0;
  const int type = key ? kNalKey : kNalPredicted;
  const int room = kMaxRtpBytes - kHeaderBytes - 2;
  const double mean = stream->predicted_bytes * (key ? stream->key_ratio : 1.0);
  int left = (int)(mean * (1.0 + (key ? 0.1 : 0.25) * next_random(stream)));
  if (left > room * (kMaxFramePackets - 2)) left = room * (kMaxFramePackets - 2);
  if (left < 2 * room) left = 2 * room;
  frame->packets = 0;
  if (key) add_parameter_sets(stream, rtp_time, frame);
  for (int start = 1; left > 0; start = 0) {
    int bytes = left < room ? left : room;
    if (bytes < kStampBytes) bytes = kStampBytes;
    left -= bytes;
    uint8_t* rtp = new_packet(stream, rtp_time, frame, kHeaderBytes + 2 + bytes);
    rtp[12] = kRefIdc | kNalFuA;
    rtp[13] = (uint8_t)(type | (start ? 0x80 : 0) | (left <= 0 ? 0x40 : 0));
    if (left <= 0) rtp[1] |= 0x80;
  }
}

void stream_stamp(uint8_t* rtp, int length, int64_t now_ns) {
  const uint32_t magic = kStampMagic;
  if (length < kStampOffset + kStampBytes || (rtp[12] & 31) != kNalFuA) return;
  memcpy(rtp + kStampOffset, &magic, sizeof(magic));
  memcpy(rtp + kStampOffset + 4, &now_ns, sizeof(now_ns));
}
