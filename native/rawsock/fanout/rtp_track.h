// One RTP stream inside the fan-out engine: its packets, its statistics, its receivers.
//
// A track decides when a frame is whole (marker bit, a new timestamp, or the hold time) and where a
// new receiver starts; it does not send. The engine's thread owns it. What other threads may read
// is in `head()`.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "fanout/packet_log.h"
#include "fanout/rtp_key_frame.h"
#include "fanout/rtp_packet.h"
#include "util/ip_endpoint.h"

namespace apo {

// Times: `mono` is CLOCK_MONOTONIC in nanoseconds, `wall` CLOCK_REALTIME in nanoseconds.
struct Arrival {
  int64_t mono;
  int64_t wall;
};

struct TrackOptions {
  uint8_t payload_type = 0;
  KeyFrames key_frames = KeyFrames::kNone;
  uint32_t clock_rate = 90000;
  size_t cache_bytes = 16u << 20;
};

// One destination. Counts are written by the engine's thread alone and read by any.
struct Receiver {
  enum class State : uint8_t { kPrepared, kWaiting, kCatchingUp, kLive, kRemoved };

  uint32_t id = 0;
  uint32_t track = 0;
  int socket = -1;
  int report_socket = -1;
  IpEndpoint rtp;
  IpEndpoint rtcp;
  bool from_key = true;
  std::atomic<State> state{State::kPrepared};
  LogCursor cursor;
  int64_t waiting_since_mono = 0;
  int64_t paced_until_mono = 0;
  // A run whose segments are at least this long was refused as GSO (longer than the path's MTU
  // allows).
  uint32_t gso_refused_bytes = UINT32_MAX;
  std::atomic<uint64_t> packets{0};
  std::atomic<uint64_t> octets{0};
  std::atomic<uint64_t> dropped{0};
};

// What a track has carried; a consistent copy.
struct TrackHead {
  std::shared_ptr<LogSegment>
      key_segment;  // where a receiver that wants a key frame starts; may be null
  uint16_t key_seq = 0;
  uint32_t key_rtp_time = 0;
  bool any_packet = false;
  uint64_t packets = 0;
  uint64_t bytes = 0;
  uint32_t ssrc = 0;
  uint16_t last_seq = 0;
  uint32_t last_rtp_time = 0;
  int64_t last_arrival_wall = 0;
  uint32_t base_seq = 0;
  uint32_t extended_seq = 0;
  uint64_t lost = 0;
  double jitter = 0;
  size_t receivers = 0;
  size_t cached_packets = 0;
  size_t cached_bytes = 0;
};

class RtpTrack {
 public:
  RtpTrack(uint32_t id, const TrackOptions& options) : id_(id), options_(options) {}

  [[nodiscard]] uint32_t id() const { return id_; }

  enum class Took { kWaiting, kFrameDone };
  // Takes one packet. Before it is appended, `frame_ready` may have to be emptied: see
  // `must_flush_before`.
  Took append(const RtpPacket& packet, const Arrival& arrival);
  // The pending frame must go out before this packet is appended: it belongs to another frame or
  // segment.
  [[nodiscard]] bool must_flush_before(const RtpPacket& packet) const;

  [[nodiscard]] bool pending() const { return pending_first_ < segment_size(); }
  [[nodiscard]] int64_t pending_since_mono() const { return pending_since_mono_; }
  // The packets of the pending frame; valid until the next append.
  [[nodiscard]] std::span<const LoggedPacket> pending_packets() const;
  [[nodiscard]] bool pending_is_key() const {
    return segment_ && segment_->key() && pending_first_ == 0;
  }
  // Call when the pending packets have been sent.
  void frame_sent() { pending_first_ = segment_size(); }

  [[nodiscard]] const std::shared_ptr<LogSegment>& segment() const { return segment_; }
  [[nodiscard]] size_t pending_first() const { return pending_first_; }
  // The segment after `current`, or the newest when that one has gone.
  [[nodiscard]] std::shared_ptr<LogSegment> after(const LogSegment& current) const;

  // Its leader began a key frame at the packet being appended: start a segment here, too.
  void leader_key();
  [[nodiscard]] bool began_key() const { return began_key_; }

  // A decoder of this codec cannot start on just any frame.
  [[nodiscard]] bool waits_for_key() const {
    return options_.key_frames != KeyFrames::kNone && options_.key_frames != KeyFrames::kAny;
  }
  void set_follows(bool follows) { follows_ = follows; }

  TrackHead head() const;
  void note_receivers(size_t count);
  // Bytes a second over the last seconds, for pacing.
  [[nodiscard]] double rate_bytes() const { return rate_bytes_; }
  [[nodiscard]] uint32_t ssrc() const { return ssrc_; }
  [[nodiscard]] bool any_packet() const { return any_packet_; }

  std::vector<std::shared_ptr<Receiver>> receivers;
  std::vector<uint32_t> followers;
  bool tapped = false;

 private:
  [[nodiscard]] size_t segment_size() const { return segment_ ? segment_->packets().size() : 0; }
  [[nodiscard]] bool starts_key(const RtpPacket& packet) const;
  void begin_segment(bool key, bool take_pending);
  void update_statistics(const RtpPacket& packet, const Arrival& arrival);
  void publish(const Arrival& arrival);

  uint32_t id_;
  TrackOptions options_;
  std::shared_ptr<LogSegment> segment_;
  std::shared_ptr<LogSegment> previous_;
  size_t pending_first_ = 0;
  int64_t pending_since_mono_ = 0;
  bool follows_ = false;
  bool leader_began_ = false;
  bool began_key_ = false;

  bool any_packet_ = false;
  uint64_t packets_ = 0;
  uint64_t bytes_ = 0;
  uint32_t ssrc_ = 0;
  uint16_t last_seq_ = 0;
  uint32_t last_rtp_time_ = 0;
  uint32_t frame_packets_ = 0;  // packets so far with `last_rtp_time_`
  uint32_t single_frames_ = 0;  // frames of one packet in a row
  uint32_t base_seq_ = 0;
  uint32_t cycles_ = 0;
  uint16_t max_seq_ = 0;
  uint64_t received_in_order_ = 0;
  double jitter_ = 0;
  double last_transit_ = 0;
  double rate_bytes_ = 0;
  int64_t rate_from_mono_ = 0;
  uint64_t rate_bytes_from_ = 0;

  mutable std::mutex head_mutex_;
  TrackHead head_;
};

}  // namespace apo
