// Any sequence of packets through a track: frames are cut into runs that hold each packet once, in
// order, within what the kernel takes; segments stay bounded. Input: [length 16 bit][packet]… ; a
// cut-off last packet is taken as it is.
#include <cstdint>
#include <cstdlib>

#include "fanout/gso_sender.h"
#include "fanout/rtp_track.h"

namespace {

void expect(bool condition) {
  if (!condition) std::abort();
}

void check_frame(apo::RtpTrack& track, std::vector<apo::SendRun>& runs) {
  const auto packets = track.pending_packets();
  apo::cut_runs(packets, runs);
  size_t seen = 0;
  for (const apo::SendRun& run : runs) {
    expect(run.packets.data() == packets.data() + seen);
    expect(!run.packets.empty() && run.packets.size() <= 64 &&
           run.piece_count <= apo::SendRun::kPiecesMax);
    size_t gathered = 0;
    for (size_t i = 0; i < run.piece_count; i++) gathered += run.pieces[i].iov_len;
    expect(gathered == run.bytes);
    for (size_t i = 0; i + 1 < run.packets.size(); i++)
      expect(run.packets[i].bytes == run.segment_bytes);
    seen += run.packets.size();
  }
  expect(seen == packets.size());
  track.frame_sent();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const auto codec = static_cast<apo::KeyFrames>(data[0] % 7);
  apo::RtpTrack track(
      1, {.payload_type = 96, .key_frames = codec, .clock_rate = 90000, .cache_bytes = 4096});
  if ((data[0] & 0x80) != 0) track.set_follows(true);
  std::vector<apo::SendRun> runs;
  size_t at = 1;
  int64_t clock = 1;
  while (at + 2 <= size) {
    const size_t length = std::min<size_t>(apo::load_be16(data + at), size - at - 2);
    const auto packet = apo::RtpPacket::parse({data + at + 2, length});
    at += 2 + length;
    if (!packet) continue;
    clock += 1'000'000;
    if (packet->payload_type() == 1) track.leader_key();
    if (track.must_flush_before(*packet)) check_frame(track, runs);
    const auto took = track.append(*packet, {clock, clock});
    expect(track.pending());
    if (took == apo::RtpTrack::Took::kFrameDone) check_frame(track, runs);
    const auto head = track.head();
    expect(head.cached_bytes <= 4096 + 65'536 * 2 || track.pending());
  }
  return 0;
}
