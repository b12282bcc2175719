// RTP headers and key frames: golden bytes, every truncation of them, and what a track makes of
// sequences.
#include <cstring>
#include <string>
#include <vector>

#include "check.h"
#include "fanout/gso_sender.h"
#include "fanout/rtp_key_frame.h"
#include "fanout/rtp_packet.h"
#include "fanout/rtp_track.h"

using apo::KeyFrames;
using apo::RtpPacket;

namespace {

using Bytes = std::vector<uint8_t>;

Bytes rtp(uint16_t seq, uint32_t time, bool marker, const Bytes& payload) {
  Bytes out(12);
  out[0] = 0x80;
  out[1] = static_cast<uint8_t>((marker ? 0x80 : 0) | 96);
  apo::store_be16(out.data() + 2, seq);
  apo::store_be32(out.data() + 4, time);
  apo::store_be32(out.data() + 8, 7);
  out.insert(out.end(), payload.begin(), payload.end());
  return out;
}

void headers() {
  // One CSRC, an extension of one word, three bytes of payload, five of padding.
  Bytes packet = {0xb1, 0xe0, 0x12, 0x34, 0, 0, 0, 9, 0xde, 0xad, 0xbe, 0xef, 1, 1, 1, 1,
                  0xbe, 0xde, 0,    1,    2, 2, 2, 2, 'a',  'b',  'c',  0,    0, 0, 0, 5};
  const auto parsed = RtpPacket::parse(packet);
  CHECK(parsed && parsed->marker() && parsed->payload_type() == 96 && parsed->seq() == 0x1234);
  CHECK(parsed->rtp_time() == 9 && parsed->ssrc() == 0xdeadbeef);
  CHECK(parsed->payload().size() == 3 && parsed->payload()[0] == 'a');
  for (size_t length = 0; length < packet.size(); length++) {
    // A copy of just that size lets the sanitizer see any read past its end.
    const Bytes cut(packet.begin(), packet.begin() + static_cast<ptrdiff_t>(length));
    if (const auto view = RtpPacket::parse(cut)) CHECK(view->payload().size() <= length);
  }
  packet[0] = 0x71;
  CHECK(!RtpPacket::parse(packet));
  packet[0] = 0xb1;
  packet.back() = 9;  // more padding than there is payload
  CHECK(!RtpPacket::parse(packet));
  packet.back() = 0;
  CHECK(!RtpPacket::parse(packet));
}

struct KeyCase {
  const char* name;
  KeyFrames codec;
  Bytes payload;
  bool key;
};

void key_frames() {
  const KeyCase cases[] = {
      {"h264 IDR", KeyFrames::kH264, {0x65, 1}, true},
      {"h264 slice", KeyFrames::kH264, {0x41, 1}, false},
      {"h264 SPS", KeyFrames::kH264, {0x67, 1}, true},
      {"h264 SEI", KeyFrames::kH264, {0x06, 1}, false},
      {"h264 FU-A first IDR", KeyFrames::kH264, {0x7c, 0x85, 1}, true},
      {"h264 FU-A later IDR", KeyFrames::kH264, {0x7c, 0x05, 1}, false},
      {"h264 FU-A first slice", KeyFrames::kH264, {0x7c, 0x81, 1}, false},
      {"h264 STAP-A SEI, SPS", KeyFrames::kH264, {0x18, 0, 2, 6, 1, 0, 2, 0x67, 1}, true},
      {"h264 STAP-A SEI, slice", KeyFrames::kH264, {0x18, 0, 2, 6, 1, 0, 2, 0x41, 1}, false},
      {"h264 STAP-A length past the end", KeyFrames::kH264, {0x18, 0xff, 0xff, 6}, false},
      {"h264 STAP-A of nothing", KeyFrames::kH264, {0x18, 0, 0, 0, 0, 0x65}, false},
      {"h265 IDR_W_RADL", KeyFrames::kH265, {19 << 1, 1, 0}, true},
      {"h265 CRA", KeyFrames::kH265, {21 << 1, 1, 0}, true},
      {"h265 TRAIL_R", KeyFrames::kH265, {1 << 1, 1, 0}, false},
      {"h265 VPS", KeyFrames::kH265, {32 << 1, 1, 0}, true},
      {"h265 FU first IDR", KeyFrames::kH265, {49 << 1, 1, 0x80 | 19}, true},
      {"h265 FU later IDR", KeyFrames::kH265, {49 << 1, 1, 19}, false},
      {"h265 AP with SPS", KeyFrames::kH265, {48 << 1, 1, 0, 2, 33 << 1, 1}, true},
      {"h265 short", KeyFrames::kH265, {19 << 1, 1}, false},
      {"vp8 key", KeyFrames::kVp8, {0x10, 0x00}, true},
      {"vp8 inter", KeyFrames::kVp8, {0x10, 0x01}, false},
      {"vp8 second packet", KeyFrames::kVp8, {0x00, 0x00}, false},
      {"vp8 extended, 15-bit id", KeyFrames::kVp8, {0x90, 0x80, 0x81, 0x02, 0x00}, true},
      {"vp8 extended, cut", KeyFrames::kVp8, {0x90, 0x80, 0x81}, false},
      {"vp9 key", KeyFrames::kVp9, {0x08}, true},
      {"vp9 inter", KeyFrames::kVp9, {0x48}, false},
      {"vp9 upper layer", KeyFrames::kVp9, {0x28, 0x02}, false},
      {"av1 new sequence", KeyFrames::kAv1, {0x18, 1}, true},
      {"av1 other", KeyFrames::kAv1, {0x10, 1}, false},
      {"anything", KeyFrames::kAny, {0}, true},
      {"nothing known", KeyFrames::kNone, {0x65}, false},
      {"empty", KeyFrames::kH264, {}, false},
  };
  for (const KeyCase& c : cases) {
    if (apo::starts_key_frame(c.codec, c.payload) != c.key) {
      std::fprintf(stderr, "key frame case: %s\n", c.name);
      CHECK(false);
    }
    for (size_t length = 0; length < c.payload.size(); length++) {
      const Bytes cut(c.payload.begin(), c.payload.begin() + static_cast<ptrdiff_t>(length));
      apo::starts_key_frame(c.codec, cut);  // the sanitizer watches
    }
  }
}

void feed(apo::RtpTrack& track, const Bytes& bytes) {
  const auto packet = RtpPacket::parse(bytes);
  CHECK(packet.has_value());
  if (track.must_flush_before(*packet)) track.frame_sent();
  if (track.append(*packet, {1'000'000, 1'000'000}) == apo::RtpTrack::Took::kFrameDone)
    track.frame_sent();
}

void track_segments() {
  apo::RtpTrack track(1, {.payload_type = 96,
                          .key_frames = KeyFrames::kH264,
                          .clock_rate = 90000,
                          .cache_bytes = 1 << 20});
  feed(track, rtp(1, 100, true, {0x41, 0}));
  CHECK(!track.head().key_segment);
  // A delimiter, then the key frame: both are the segment's.
  feed(track, rtp(2, 200, false, {0x09, 0}));
  feed(track, rtp(3, 200, false, {0x67, 0}));
  feed(track, rtp(4, 200, false, {0x68, 0}));
  CHECK(track.pending_packets().size() == 3 && track.pending_is_key());
  feed(track, rtp(5, 200, true, {0x65, 0}));
  const auto first = track.head().key_segment;
  CHECK(first && track.head().key_seq == 2 && first->packets().size() == 4);
  feed(track, rtp(6, 300, true, {0x41, 0}));
  CHECK(track.head().key_segment == first && track.head().cached_packets == 5);
  feed(track, rtp(7, 400, true, {0x65, 0}));
  CHECK(track.head().key_segment != first && track.after(*first) == track.segment());
  // Two segments on, the link has gone and the newest one serves.
  feed(track, rtp(8, 500, true, {0x65, 0}));
  feed(track, rtp(9, 600, true, {0x65, 0}));
  CHECK(first->next.expired() && track.after(*first) == track.segment());
}

// Audio without marker bits: once it is known that a frame is one packet, none is held.
void singles() {
  apo::RtpTrack track(
      1,
      {.payload_type = 96, .key_frames = KeyFrames::kAny, .clock_rate = 48000, .cache_bytes = 1});
  const auto took = [&track](uint16_t seq, uint32_t time) {
    const Bytes bytes = rtp(seq, time, false, {1, 2});
    const auto packet = RtpPacket::parse(bytes);
    if (track.must_flush_before(*packet)) track.frame_sent();
    const bool done = track.append(*packet, {1, 1}) == apo::RtpTrack::Took::kFrameDone;
    if (done) track.frame_sent();
    return done;
  };
  uint16_t seq = 0;
  for (; seq < 8; seq++) CHECK(!took(seq, seq * 960u));
  CHECK(took(seq, seq * 960u));
  seq++;
  CHECK(took(seq, 50'000) && !took(static_cast<uint16_t>(seq + 1), 50'000));
  CHECK(!took(static_cast<uint16_t>(seq + 2), 51'000));
}

void runs() {
  apo::LogSegment segment(false, 4096);
  const size_t sizes[] = {50,   1000, 1000, 1000, 400, 1000, 1000,
                          1000, 1400, 20,   20,   21,  5000, 5000};
  for (const size_t size : sizes) segment.append(Bytes(size, 1), {});
  std::vector<apo::SendRun> cut;
  apo::cut_runs(segment.packets(), cut);
  size_t packets = 0;
  for (const auto& run : cut) {
    size_t bytes = 0;
    for (size_t i = 0; i < run.packets.size(); i++) {
      bytes += run.packets[i].bytes;
      const bool last = i + 1 == run.packets.size();
      CHECK(last ? run.packets[i].bytes <= run.segment_bytes
                 : run.packets[i].bytes == run.segment_bytes);
    }
    size_t gathered = 0;
    for (size_t i = 0; i < run.piece_count; i++) gathered += run.pieces[i].iov_len;
    CHECK(bytes == run.bytes && gathered == bytes && run.packets.size() <= 64);
    CHECK(run.packets.data() == segment.packets().data() + packets);
    packets += run.packets.size();
  }
  CHECK(packets == std::size(sizes));
  CHECK(cut.size() == 7);
}

}  // namespace

int main() {
  headers();
  key_frames();
  track_segments();
  singles();
  runs();
  return 0;
}
