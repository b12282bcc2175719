// See rtp_key_frame.h.
#include "fanout/rtp_key_frame.h"

#include "fanout/rtp_packet.h"

namespace apo {
namespace {

// RFC 6184 5.2, 5.7. 5 = IDR slice, 7 = sequence parameter set.
bool h264_unit(uint8_t header) {
  const uint8_t type = header & 0x1f;
  return type == 5 || type == 7;
}

bool h264(std::span<const uint8_t> p) {
  if (p.empty()) return false;
  const uint8_t type = p[0] & 0x1f;
  if (type < 24) return h264_unit(p[0]);
  if (type == 28 || type == 29) {  // FU-A, FU-B: only the first fragment starts anything
    return p.size() >= 2 && (p[1] & 0x80) != 0 && h264_unit(p[1]);
  }
  // STAP-A, and STAP-B with its 16-bit decoding order number first. (MTAPs belong to the
  // interleaved mode, in which no packet can be said to come first.)
  if (type > 25) return false;
  size_t at = type == 24 ? 1 : 3;
  while (at + 2 < p.size()) {
    const size_t length = load_be16(p.data() + at);
    at += 2;
    if (h264_unit(p[at])) return true;
    if (length == 0) return false;
    at += length;
  }
  return false;
}

// RFC 7798 4.4. 16..21 = IRAP pictures (BLA, IDR, CRA), 32 and 33 = VPS and SPS.
bool h265_type(unsigned type) { return (type >= 16 && type <= 21) || type == 32 || type == 33; }

bool h265(std::span<const uint8_t> p) {
  if (p.size() < 3) return false;
  const unsigned type = p[0] >> 1 & 0x3f;
  if (type == 49) return (p[2] & 0x80) != 0 && h265_type(p[2] & 0x3f);
  if (type != 48) return h265_type(type);
  size_t at = 2;
  while (at + 2 < p.size()) {
    const size_t length = load_be16(p.data() + at);
    at += 2;
    if (h265_type(p[at] >> 1 & 0x3f)) return true;
    if (length == 0) return false;
    at += length;
  }
  return false;
}

// RFC 7741 4.2, 4.3: the first packet of a frame (S = 1, PID = 0) whose P bit is 0.
bool vp8(std::span<const uint8_t> p) {
  if (p.empty() || (p[0] & 0x10) == 0 || (p[0] & 0x07) != 0) return false;
  size_t at = 1;
  if ((p[0] & 0x80) != 0) {
    if (p.size() < 2) return false;
    const uint8_t x = p[1];
    at = 2;
    if ((x & 0x80) != 0) at += at < p.size() && (p[at] & 0x80) != 0 ? 2 : 1;
    if ((x & 0x40) != 0) at += 1;
    if ((x & 0x30) != 0) at += 1;
  }
  return at < p.size() && (p[at] & 0x01) == 0;
}

// RFC 9628 4.2: start of a frame (B = 1), not inter-predicted (P = 0), and the base spatial layer
// where given.
bool vp9(std::span<const uint8_t> p) {
  if (p.empty() || (p[0] & 0x08) == 0 || (p[0] & 0x40) != 0) return false;
  size_t at = 1;
  if ((p[0] & 0x80) != 0) {
    if (p.size() < 2) return false;
    at += (p[1] & 0x80) != 0 ? 2 : 1;
  }
  if ((p[0] & 0x20) != 0) return at < p.size() && (p[at] & 0x0e) == 0;
  return true;
}

// AV1 RTP aggregation header, 4.4: N marks the first packet of a coded video sequence.
bool av1(std::span<const uint8_t> p) { return !p.empty() && (p[0] & 0x08) != 0; }

}  // namespace

bool starts_key_frame(KeyFrames codec, std::span<const uint8_t> payload) {
  switch (codec) {
    case KeyFrames::kNone:
      return false;
    case KeyFrames::kAny:
      return true;
    case KeyFrames::kH264:
      return h264(payload);
    case KeyFrames::kH265:
      return h265(payload);
    case KeyFrames::kVp8:
      return vp8(payload);
    case KeyFrames::kVp9:
      return vp9(payload);
    case KeyFrames::kAv1:
      return av1(payload);
  }
  return false;
}

}  // namespace apo
