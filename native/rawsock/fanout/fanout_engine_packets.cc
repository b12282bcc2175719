// What the fan-out engine's thread does with packets: receive, gather into frames, send, catch up,
// report.
#include <algorithm>
#include <cerrno>
#include <cstring>

#include "fanout/fanout_engine.h"
#include "fanout/fanout_time.h"

namespace apo {
namespace {

// Datagrams that no source explains reach the app at this rate at most: reports of thousands of
// readers pass, a flood costs a few percent of a core.
constexpr double kStraysPerSecond = 20'000;
constexpr double kStrayBurst = 8'192;
constexpr size_t kStrayBytesMax = 2'048;

constexpr int64_t kCatchUpTickNs = 4'000'000;
// A new receiver gets what is cached at this many times the track's own rate, and at least the
// floor. A whole GOP at line rate would overrun the socket buffer that a player starts with (about
// 200 KB).
constexpr double kCatchUpFactor = 4;
constexpr double kCatchUpFloorBytes = 1'500'000;
constexpr size_t kCatchUpFirstBytes = 32'768;
// Of one tick, catching up may take this much; live frames come first.
constexpr int64_t kCatchUpBudgetNs = 2'000'000;
constexpr int64_t kReportTickNs = 2'000'000;
constexpr int64_t kKeyWaitNs = 10'000'000'000;
constexpr int64_t kKeyWaitTickNs = 100'000'000;

// An event's bytes fit one 64 KiB frame of the shared pool, so that an app sends it on as one
// piece.
constexpr size_t kFramesEventBytes = 65'536;
constexpr size_t kPrefixBytes = 4;

size_t interleaved_bytes(std::span<const LoggedPacket> packets) {
  size_t bytes = 0;
  for (const LoggedPacket& packet : packets) bytes += kPrefixBytes + packet.bytes;
  return bytes;
}

bool is_rtcp(std::span<const uint8_t> bytes) {
  // RFC 5761 4: packet types 192..223 cannot be RTP with a marker bit.
  return bytes.size() >= 8 && bytes[0] >> 6 == 2 && bytes[1] >= 192 && bytes[1] <= 223;
}

}  // namespace

void FanoutEngine::receive(uint32_t id, bool v6) {
  // Bounded, so that a flood at one socket leaves room for the others and for the timers.
  for (int round = 0; round < 8; round++) {
    // Looked up anew each round: a command that ran meanwhile may have closed it.
    const auto found = sockets_.find(id);
    if (found == sockets_.end()) return;
    SocketPair& pair = found->second;
    const auto& socket = v6 ? pair.v6 : pair.v4;
    uint32_t& kernel_drops = v6 ? pair.kernel_drops_v6 : pair.kernel_drops_v4;
    if (!socket) return;
    const int count = batch_.receive(socket->fd());
    bump(counters_.receive_calls, 1);
    if (count <= 0) return;
    note_kernel_drops(count, kernel_drops);
    take_batch(id, count);
    if (static_cast<size_t>(count) < ReceiveBatch::kMessages) return;
  }
}

void FanoutEngine::receive_raw() {
  // Bounded likewise; what is left keeps the thread awake.
  for (size_t taken = 0; taken < 8 * ReceiveBatch::kMessages; taken++) {
    const auto message = raw_->receive();
    if (!message) return;
    const auto found = raw_ids_.find(message->port);
    if (found != raw_ids_.end() && message->segment_bytes > 0) {
      const Arrival arrival = arrival_now();
      bump(counters_.receive_messages, 1);
      bump(counters_.receive_bytes, message->bytes.size());
      const bool is_run = message->segment_bytes < message->bytes.size();
      for (size_t at = 0; at < message->bytes.size(); at += message->segment_bytes) {
        const size_t length = std::min(message->segment_bytes, message->bytes.size() - at);
        if (is_run) bump(counters_.receive_gro_packets, 1);
        datagram(found->second, message->from, message->bytes.subspan(at, length), arrival);
      }
    }
    raw_->done();
  }
}

void FanoutEngine::note_kernel_drops(int count, uint32_t& known) {
  ReceiveBatch::Message message;
  // The count only grows: the last message tells it.
  if (!batch_.message(static_cast<size_t>(count) - 1, message) || message.kernel_drops <= known)
    return;
  bump(counters_.drop_kernel_receive, message.kernel_drops - known);
  known = message.kernel_drops;
}

void FanoutEngine::take_batch(uint32_t id, int count) {
  const Arrival arrival = arrival_now();
  for (size_t i = 0; i < static_cast<size_t>(count); i++) {
    ReceiveBatch::Message message;
    if (!batch_.message(i, message)) continue;
    bump(counters_.receive_messages, 1);
    bump(counters_.receive_bytes, message.bytes.size());
    if (message.truncated) {
      bump(counters_.drop_truncated, 1);
      continue;
    }
    if (message.segment_bytes >= message.bytes.size()) {
      datagram(id, message.from, message.bytes, arrival);
      continue;
    }
    for (size_t at = 0; at < message.bytes.size(); at += message.segment_bytes) {
      const size_t length = std::min(message.segment_bytes, message.bytes.size() - at);
      bump(counters_.receive_gro_packets, 1);
      datagram(id, message.from, message.bytes.subspan(at, length), arrival);
    }
  }
}

RtpTrack* FanoutEngine::source_track(uint32_t socket, const IpEndpoint& from) {
  auto found = sources_.find(SourceKey{socket, from});
  if (found == sources_.end()) {
    IpEndpoint any_port = from;
    any_port.set_port(0);
    found = sources_.find(SourceKey{socket, any_port});
  }
  if (found == sources_.end()) return nullptr;
  const auto track = tracks_.find(found->second);
  return track == tracks_.end() ? nullptr : track->second.get();
}

void FanoutEngine::datagram(uint32_t socket, const IpEndpoint& from, std::span<const uint8_t> bytes,
                            const Arrival& arrival) {
  bump(counters_.receive_packets, 1);
  RtpTrack* track = source_track(socket, from);
  if (track == nullptr && commands_waiting_.load(std::memory_order_acquire)) {
    // The app may have named this source before it answered the sender: that command comes first.
    run_commands();
    track = source_track(socket, from);
  }
  if (track == nullptr || is_rtcp(bytes)) {
    stray(socket, from, bytes, arrival);
    return;
  }
  packet(*track, bytes, arrival);
}

void FanoutEngine::stray(uint32_t socket, const IpEndpoint& from, std::span<const uint8_t> bytes,
                         const Arrival& arrival) {
  const double refill = static_cast<double>(arrival.mono - stray_at_) * kStraysPerSecond / 1e9;
  stray_tokens_ = std::min(kStrayBurst, stray_tokens_ + refill);
  stray_at_ = arrival.mono;
  if (stray_tokens_ < 1) {
    bump(counters_.drop_stray_rate, 1);
    return;
  }
  stray_tokens_ -= 1;
  FanoutEvent event;
  event.kind = FanoutEvent::Kind::kDatagram;
  event.subject = socket;
  event.from = from;
  const auto kept = bytes.first(std::min(bytes.size(), kStrayBytesMax));
  event.bytes.assign(kept.begin(), kept.end());
  if (events_.push(std::move(event))) {
    bump(counters_.datagrams, 1);
  } else {
    bump(counters_.drop_event_queue, 1);
  }
}

void FanoutEngine::packet(RtpTrack& track, std::span<const uint8_t> bytes, const Arrival& arrival) {
  const auto parsed = RtpPacket::parse(bytes);
  if (!parsed) {
    bump(counters_.drop_malformed, 1);
    return;
  }
  if (track.must_flush_before(*parsed)) flush_frame(track, false);
  const bool was_pending = track.pending();
  const RtpTrack::Took took = track.append(*parsed, arrival);
  if (track.began_key()) {
    bump(counters_.key_frames, 1);
    for (const uint32_t follower : track.followers) {
      if (const auto found = tracks_.find(follower); found != tracks_.end())
        found->second->leader_key();
    }
  }
  if (took == RtpTrack::Took::kFrameDone) {
    flush_frame(track, false);
  } else if (!was_pending) {
    pending_tracks_.push_back(track.id());
  }
}

void FanoutEngine::flush_frame(RtpTrack& track, bool by_hold) {
  const auto packets = track.pending_packets();
  std::erase(pending_tracks_, track.id());
  if (packets.empty()) return;
  bump(counters_.frames, 1);
  if (by_hold) bump(counters_.frames_by_hold, 1);
  const bool key = track.pending_is_key();
  if (!track.receivers.empty()) {
    cut_runs(packets, runs_);
    targets_.clear();
    for (const auto& receiver : track.receivers) {
      auto state = receiver->state.load(std::memory_order_relaxed);
      if (key && state == Receiver::State::kWaiting) {
        state = Receiver::State::kLive;
        receiver->state.store(state, std::memory_order_relaxed);
      }
      if (state != Receiver::State::kLive) continue;
      SendSocket* socket = send_socket(static_cast<uint32_t>(receiver->socket), receiver->rtp);
      if (socket == nullptr) {
        receiver->dropped.fetch_add(packets.size(), std::memory_order_relaxed);
        bump(send_counters_.dropped_unreachable, packets.size());
        continue;
      }
      targets_.push_back({socket, receiver.get()});
    }
    crew_.sweep(targets_, runs_, packets.size(), sender_, send_counters_);
  }
  if (track.tapped) tap_frame(track);
  track.frame_sent();
}

void FanoutEngine::flush_due(int64_t now) {
  for (size_t i = 0; i < pending_tracks_.size();) {
    const auto found = tracks_.find(pending_tracks_[i]);
    if (found == tracks_.end()) {
      pending_tracks_.erase(pending_tracks_.begin() + static_cast<ptrdiff_t>(i));
      continue;
    }
    if (now - found->second->pending_since_mono() >= options_.hold_ns) {
      flush_frame(*found->second, true);  // takes it out of pending_tracks_
      continue;
    }
    i++;
  }
}

void FanoutEngine::tap_frame(RtpTrack& track) {
  emit_frames(track, track.pending_packets(), 0, track.pending_is_key() || !track.waits_for_key(),
              false);
}

void FanoutEngine::emit_frames(RtpTrack& track, std::span<const LoggedPacket> packets,
                               uint32_t ticket, bool key, bool last) {
  size_t i = 0;
  do {
    FanoutEvent event;
    event.kind = FanoutEvent::Kind::kFrames;
    event.subject = track.id();
    event.ticket = ticket;
    event.key = key;
    key = key && !track.waits_for_key();
    if (i < packets.size()) {
      event.rtp_time = packets[i].rtp_time;
      event.seq = packets[i].seq;
    }
    event.bytes.reserve(std::min(kFramesEventBytes, interleaved_bytes(packets.subspan(i))));
    while (i < packets.size()) {
      const LoggedPacket& packet = packets[i];
      const size_t needed = kPrefixBytes + packet.bytes;
      if (packet.bytes > 0xffff) {
        i++;
        continue;
      }
      if (!event.bytes.empty() && event.bytes.size() + needed > kFramesEventBytes) break;
      const size_t at = event.bytes.size();
      event.offsets.push_back(static_cast<uint32_t>(at));
      uint8_t prefix[kPrefixBytes] = {'$', 0, 0, 0};
      store_be16(prefix + 2, packet.bytes);
      event.bytes.insert(event.bytes.end(), prefix, prefix + kPrefixBytes);
      event.bytes.insert(event.bytes.end(), packet.data, packet.data + packet.bytes);
      i++;
    }
    event.last = last && i >= packets.size();
    const size_t count = event.offsets.size();
    if (!events_.push(std::move(event))) bump(counters_.drop_tap_queue, count);
  } while (i < packets.size());
}

void FanoutEngine::emit_cached(RtpTrack& track, LogCursor cursor, uint32_t ticket) {
  // Up to the pending frame: that one, and all later, come as live events.
  bool key = true;
  while (cursor.segment) {
    const bool newest = cursor.segment == track.segment();
    const auto& packets = cursor.segment->packets();
    const size_t end = newest ? track.pending_first() : packets.size();
    const auto span = std::span(packets).first(end);
    if (newest) {
      emit_frames(track, span, ticket, key && !span.empty(), true);
      return;
    }
    if (!span.empty()) emit_frames(track, span, ticket, key, false);
    cursor.segment = track.after(*cursor.segment);
    key = !track.waits_for_key() || (cursor.segment && cursor.segment->key());
  }
  emit_frames(track, {}, ticket, false, true);
}

void FanoutEngine::begin_receiver(const std::shared_ptr<Receiver>& receiver, int64_t now) {
  if (receiver->state.load(std::memory_order_relaxed) != Receiver::State::kPrepared) return;
  const auto found = tracks_.find(receiver->track);
  if (found == tracks_.end()) return;
  auto state = Receiver::State::kLive;
  if (receiver->cursor.segment) {
    state = Receiver::State::kCatchingUp;
    // Its segment may be several behind if the app took its time to start it; then the newest key
    // frame serves.
    if (receiver->cursor.segment != found->second->segment() &&
        receiver->cursor.segment->next.expired()) {
      receiver->cursor = {found->second->segment(), 0};
      bump(counters_.catchup_skips, 1);
    }
  } else if (receiver->from_key && found->second->waits_for_key()) {
    state = Receiver::State::kWaiting;
  }
  receiver->state.store(state, std::memory_order_relaxed);
  receiver->waiting_since_mono = now;
  receiver->paced_until_mono = 0;
  if (state == Receiver::State::kLive) return;
  unsettled_.push_back(receiver);
  next_catch_up_ = now;
}

void FanoutEngine::detach_receiver(Receiver& receiver) {
  receiver.state.store(Receiver::State::kRemoved, std::memory_order_relaxed);
  receiver.cursor.segment.reset();
  const auto found = tracks_.find(receiver.track);
  if (found == tracks_.end()) return;
  auto& all = found->second->receivers;
  const auto at = std::find_if(all.begin(), all.end(),
                               [&](const auto& each) { return each.get() == &receiver; });
  if (at == all.end()) return;
  // Order among receivers means nothing: the last takes the place.
  *at = std::move(all.back());
  all.pop_back();
  found->second->note_receivers(all.size());
}

void FanoutEngine::catch_up(int64_t now) {
  bool any_moving = false;
  const size_t count = unsettled_.size();
  const int64_t budget_end = now + kCatchUpBudgetNs;
  for (size_t n = 0; n < count; n++) {
    Receiver& receiver = *unsettled_[(catch_up_from_ + n) % count];
    const auto state = receiver.state.load(std::memory_order_relaxed);
    const auto found = tracks_.find(receiver.track);
    if (found == tracks_.end()) {
      receiver.state.store(Receiver::State::kRemoved, std::memory_order_relaxed);
      continue;
    }
    if (state == Receiver::State::kWaiting && now - receiver.waiting_since_mono > kKeyWaitNs) {
      receiver.state.store(Receiver::State::kLive, std::memory_order_relaxed);
      bump(counters_.key_wait_expired, 1);
    } else if (state == Receiver::State::kCatchingUp) {
      any_moving = true;
      if (catch_up_step(*found->second, receiver, now)) {
        receiver.cursor.segment.reset();
        receiver.state.store(Receiver::State::kLive, std::memory_order_relaxed);
      }
    }
    if (mono_now() > budget_end) {
      catch_up_from_ = (catch_up_from_ + n + 1) % count;
      break;
    }
  }
  std::erase_if(unsettled_, [](const auto& receiver) {
    const auto state = receiver->state.load(std::memory_order_relaxed);
    return state != Receiver::State::kWaiting && state != Receiver::State::kCatchingUp;
  });
  next_catch_up_ = mono_now() + (any_moving ? kCatchUpTickNs : kKeyWaitTickNs);
}

// True when the receiver has all that lies before the pending frame: it is live from then on.
bool FanoutEngine::catch_up_step(RtpTrack& track, Receiver& receiver, int64_t now) {
  const double rate = std::max(kCatchUpFactor * track.rate_bytes(), kCatchUpFloorBytes);
  size_t allowed = kCatchUpFirstBytes;
  if (receiver.paced_until_mono != 0) {
    // Time that went by without a turn is not saved up: a burst is what pacing is to prevent.
    const int64_t elapsed = std::min(now - receiver.paced_until_mono, 2 * kCatchUpTickNs);
    allowed = static_cast<size_t>(rate * static_cast<double>(std::max<int64_t>(elapsed, 0)) / 1e9);
  }
  receiver.paced_until_mono = now;
  SendSocket* socket = send_socket(static_cast<uint32_t>(receiver.socket), receiver.rtp);
  if (socket == nullptr) return true;
  LogCursor& cursor = receiver.cursor;
  for (;;) {
    const bool newest = cursor.segment == track.segment();
    const auto& packets = cursor.segment->packets();
    const size_t end = newest ? track.pending_first() : packets.size();
    size_t upto = cursor.index;
    size_t bytes = 0;
    while (upto < end && bytes < allowed) bytes += packets[upto++].bytes;
    if (upto > cursor.index) {
      cut_runs(std::span(packets).subspan(cursor.index, upto - cursor.index), runs_);
      sender_.add(*socket, receiver, runs_);
      sender_.flush();
      allowed -= std::min(allowed, bytes);
      cursor.index = upto;
    }
    if (cursor.index < end) return false;
    if (newest) return true;
    if (cursor.segment->next.expired()) bump(counters_.catchup_skips, 1);
    cursor = {track.after(*cursor.segment), 0};
  }
}

SendSocket* FanoutEngine::send_socket(uint32_t id, const IpEndpoint& to) {
  const auto found = sockets_.find(id);
  if (found == sockets_.end()) return nullptr;
  if (found->second.raw) return found->second.raw.get();
  const auto& socket = to.is_v6() ? found->second.v6 : found->second.v4;
  return socket ? &socket->send : nullptr;
}

void FanoutEngine::send_now(uint32_t socket, const IpEndpoint& to, std::span<const uint8_t> bytes) {
  const SendSocket* from = send_socket(socket, to);
  if (from != nullptr && from->raw != nullptr) {
    const iovec piece = {const_cast<uint8_t*>(bytes.data()), bytes.size()};
    const int error = from->raw->send(from->raw_port, to, {&piece, 1}, bytes.size(), 0);
    if (error != 0) bump(counters_.drop_send_datagram, 1);
    from->raw->flush();
    return;
  }
  if (from == nullptr || ::sendto(from->fd, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
                                  to.raw(), to.raw_length()) < 0) {
    bump(counters_.drop_send_datagram, 1);
  }
}

void FanoutEngine::report_on(int64_t now) {
  PendingReport& pending = reports_.front();
  const auto found = tracks_.find(pending.track);
  for (size_t n = 0; n < kReportsAtOnce && !pending.to.empty() && found != tracks_.end(); n++) {
    send_report_to(*found->second, *pending.to.back(), pending.report);
    pending.to.pop_back();
  }
  if (pending.to.empty() || found == tracks_.end()) reports_.erase(reports_.begin());
  next_report_ = now + kReportTickNs;
}

// RFC 3550 6.4.1 (SR), 6.5 (SDES with CNAME), 6.6 (BYE), as one compound packet.
void FanoutEngine::send_report_to(const RtpTrack& track, const Receiver& receiver,
                                  const Report& report) {
  const auto state = receiver.state.load(std::memory_order_relaxed);
  if (state == Receiver::State::kRemoved || receiver.rtcp.port() == 0) return;
  std::array<uint8_t, 320> out = {};
  uint8_t* p = out.data();
  p[0] = 0x80;
  p[1] = 200;
  store_be16(p + 2, 6);
  store_be32(p + 4, track.ssrc());
  store_be32(p + 8, report.ntp_seconds);
  store_be32(p + 12, report.ntp_fraction);
  store_be32(p + 16, report.rtp_time);
  store_be32(p + 20, static_cast<uint32_t>(receiver.packets.load(std::memory_order_relaxed)));
  store_be32(p + 24, static_cast<uint32_t>(receiver.octets.load(std::memory_order_relaxed)));
  p += 28;
  const size_t name = std::min<size_t>(report.cname.size(), 255);
  // Header 4, SSRC 4, item 2 + name, at least one zero, padded to 32 bits.
  const size_t sdes = (4 + 4 + 2 + name + 1 + 3) / 4 * 4;
  p[0] = 0x81;
  p[1] = 202;
  store_be16(p + 2, static_cast<uint32_t>(sdes / 4 - 1));
  store_be32(p + 4, track.ssrc());
  p[8] = 1;
  p[9] = static_cast<uint8_t>(name);
  std::memcpy(p + 10, report.cname.data(), name);
  p += sdes;
  if (report.bye) {
    p[0] = 0x81;
    p[1] = 203;
    store_be16(p + 2, 1);
    store_be32(p + 4, track.ssrc());
    p += 8;
  }
  bump(counters_.reports, 1);
  send_now(static_cast<uint32_t>(receiver.report_socket), receiver.rtcp,
           std::span(out).first(static_cast<size_t>(p - out.data())));
}

}  // namespace apo
