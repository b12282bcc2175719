// See rtp_track.h.
#include "fanout/rtp_track.h"

#include <algorithm>
#include <cmath>

namespace apo {
namespace {

constexpr size_t kBlockBytes = 128u << 10;
// A segment that no receiver will start from is only a buffer for the frames in flight.
constexpr size_t kUncachedSegmentBytes = 256u << 10;
// An index of tiny packets must stay bounded as well: bytes alone would allow millions of them.
constexpr size_t kSegmentPacketsMax = 1u << 17;
// After so many frames of one packet in a row, the next packet is taken for a whole frame, too:
// most audio has no marker bit, and would otherwise be held for nothing.
constexpr uint32_t kSinglesLearned = 8;
constexpr int64_t kRateWindowNs = 1'000'000'000;

}  // namespace

bool RtpTrack::starts_key(const RtpPacket& packet) const {
  if (options_.key_frames == KeyFrames::kNone || options_.key_frames == KeyFrames::kAny)
    return false;
  if (packet.payload_type() != options_.payload_type) return false;
  if (!starts_key_frame(options_.key_frames, packet.payload())) return false;
  // Parameter sets and slices of one key frame each look like a start; the first of them is it.
  const bool same_frame = segment_ && segment_->key() && !segment_->packets().empty() &&
                          segment_->packets().front().rtp_time == packet.rtp_time() &&
                          last_rtp_time_ == packet.rtp_time();
  return !same_frame;
}

bool RtpTrack::must_flush_before(const RtpPacket& packet) const {
  return pending() && packet.rtp_time() != segment_->packets().back().rtp_time;
}

void RtpTrack::begin_segment(bool key, bool take_pending) {
  auto fresh = std::make_shared<LogSegment>(key, kBlockBytes);
  if (segment_) {
    if (take_pending) {
      const auto waiting = pending_packets();
      for (const LoggedPacket& packet : waiting) fresh->append(packet.span(), packet);
      segment_->drop_tail(waiting.size());
    }
    segment_->next = fresh;
    previous_ = std::move(segment_);
  }
  segment_ = std::move(fresh);
  pending_first_ = 0;
}

void RtpTrack::leader_key() { leader_began_ = true; }

RtpTrack::Took RtpTrack::append(const RtpPacket& packet, const Arrival& arrival) {
  began_key_ = starts_key(packet);
  if (began_key_ || (follows_ && leader_began_)) {
    begin_segment(true, true);
    leader_began_ = false;
  } else if (!segment_) {
    begin_segment(false, false);
  } else {
    const size_t limit = segment_->key() ? options_.cache_bytes : kUncachedSegmentBytes;
    if (!pending() &&
        (segment_->bytes() > limit || segment_->packets().size() >= kSegmentPacketsMax)) {
      begin_segment(false, false);
    }
  }
  if (!pending()) pending_since_mono_ = arrival.mono;
  LoggedPacket meta = {};
  meta.rtp_time = packet.rtp_time();
  meta.payload_bytes = static_cast<uint32_t>(packet.payload().size());
  meta.seq = packet.seq();
  meta.marker = packet.marker();
  segment_->append(packet.bytes(), meta);
  update_statistics(packet, arrival);
  publish(arrival);
  const bool alone = frame_packets_ == 1 && single_frames_ >= kSinglesLearned;
  return packet.marker() || alone ? Took::kFrameDone : Took::kWaiting;
}

std::span<const LoggedPacket> RtpTrack::pending_packets() const {
  if (!pending()) return {};
  return std::span(segment_->packets()).subspan(pending_first_);
}

std::shared_ptr<LogSegment> RtpTrack::after(const LogSegment& current) const {
  if (auto next = current.next.lock()) return next;
  return segment_;
}

// RFC 3550 A.1 (simplified: a source is believed at once) and A.8.
void RtpTrack::update_statistics(const RtpPacket& packet, const Arrival& arrival) {
  const uint16_t seq = packet.seq();
  if (!any_packet_ || packet.ssrc() != ssrc_) {
    ssrc_ = packet.ssrc();
    base_seq_ = seq;
    max_seq_ = seq;
    cycles_ = 0;
    received_in_order_ = 0;
    jitter_ = 0;
    last_transit_ = 0;
  } else {
    const auto ahead = static_cast<uint16_t>(seq - max_seq_);
    if (ahead != 0 && ahead < 0x8000) {
      if (seq < max_seq_) cycles_ += 0x10000;
      max_seq_ = seq;
    }
  }
  received_in_order_++;
  if (any_packet_ && packet.rtp_time() == last_rtp_time_) {
    frame_packets_++;
    single_frames_ = 0;
  } else {
    if (frame_packets_ == 1) single_frames_++;
    frame_packets_ = 1;
  }
  const double transit = static_cast<double>(arrival.mono) * options_.clock_rate / 1e9 -
                         static_cast<double>(packet.rtp_time());
  if (any_packet_ && packet.rtp_time() != last_rtp_time_) {
    // A timestamp that wrapped, or a publisher that began anew, is no jitter.
    const double change = std::fabs(transit - last_transit_);
    if (change < 10.0 * options_.clock_rate) jitter_ += (change - jitter_) / 16.0;
  }
  last_transit_ = transit;
  any_packet_ = true;
  packets_++;
  bytes_ += packet.bytes().size();
  last_seq_ = seq;
  last_rtp_time_ = packet.rtp_time();
  if (rate_from_mono_ == 0) {
    rate_from_mono_ = arrival.mono;
    rate_bytes_from_ = bytes_;
  } else if (const int64_t elapsed = arrival.mono - rate_from_mono_; elapsed > kRateWindowNs) {
    const double now_rate =
        static_cast<double>(bytes_ - rate_bytes_from_) * 1e9 / static_cast<double>(elapsed);
    rate_bytes_ = rate_bytes_ == 0 ? now_rate : 0.5 * rate_bytes_ + 0.5 * now_rate;
    rate_from_mono_ = arrival.mono;
    rate_bytes_from_ = bytes_;
  }
}

void RtpTrack::publish(const Arrival& arrival) {
  const std::lock_guard lock(head_mutex_);
  TrackHead& h = head_;
  if (segment_->key()) {
    if (h.key_segment != segment_) {
      h.key_segment = segment_;
      h.key_seq = segment_->packets().front().seq;
      h.key_rtp_time = segment_->packets().front().rtp_time;
    }
  } else {
    h.key_segment = nullptr;
  }
  h.any_packet = true;
  h.packets = packets_;
  h.bytes = bytes_;
  h.ssrc = ssrc_;
  h.last_seq = last_seq_;
  h.last_rtp_time = last_rtp_time_;
  h.last_arrival_wall = arrival.wall;
  h.base_seq = base_seq_;
  h.extended_seq = cycles_ + max_seq_;
  const uint64_t expected = static_cast<uint64_t>(h.extended_seq) - base_seq_ + 1;
  h.lost = expected > received_in_order_ ? expected - received_in_order_ : 0;
  h.jitter = jitter_;
  h.cached_packets = segment_->key() ? segment_->packets().size() : 0;
  h.cached_bytes = segment_->key() ? segment_->bytes() : 0;
}

TrackHead RtpTrack::head() const {
  const std::lock_guard lock(head_mutex_);
  return head_;
}

void RtpTrack::note_receivers(size_t count) {
  const std::lock_guard lock(head_mutex_);
  head_.receivers = count;
}

}  // namespace apo
