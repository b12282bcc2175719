// A synthetic H.264 RTP stream (RFC 6184): the sizes and packets of a camera, the content of
// nothing.
//
// Knows nothing of sockets. Deterministic: the same options give the same packets, but for the send
// stamps.
#ifndef BENCH_STREAM_H_
#define BENCH_STREAM_H_

#include <stdint.h>

enum {
  kMaxRtpBytes = 1400,      // a packet of a fragmented frame, header included
  kMaxFramePackets = 1024,  // 1.4 MB a frame: 280 Mbit/s at 25 fps
  kPayloadType = 96,
  kClockRate = 90000,
  kInterleavedBytes = 4,  // room before each packet for "$", channel, length
};

struct stream {
  int frames_per_second;
  int group;            // frames from one key frame to the next
  int predicted_bytes;  // mean size of a frame that is not a key frame
  double key_ratio;     // a key frame's size in predicted frames
  uint32_t random;
  uint32_t frame;
  uint16_t seq;
  uint32_t ssrc;
};

struct frame {
  int packets;
  int length[kMaxFramePackets];
  uint8_t bytes[kMaxFramePackets][kInterleavedBytes + kMaxRtpBytes];
};

void stream_start(struct stream* stream, int kbit_per_second, int frames_per_second, int group);
// Fills `frame` with the next access unit. Key frames are preceded by one STAP-A packet with SPS
// and PPS.
void stream_next(struct stream* stream, uint32_t rtp_time, struct frame* frame);
// Writes the send time into a packet that has room for it (see samples.h).
void stream_stamp(uint8_t* rtp, int length, int64_t now_ns);
// The session's description, as a publisher announces it.
const char* stream_sdp(void);

#endif  // BENCH_STREAM_H_
