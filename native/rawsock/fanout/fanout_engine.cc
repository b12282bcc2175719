// The app's side of the fan-out engine, and its thread's loop. Packets are in
// fanout_engine_packets.cc.
#include "fanout/fanout_engine.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <ctime>

#include "fanout/fanout_time.h"

namespace apo {
namespace {

constexpr uint64_t kWakeToken = UINT64_MAX;
// While a frame is arriving, packets come every few microseconds. Waking for each costs more than
// the packet itself, so the thread lets this much time pass before it looks again.
constexpr int64_t kGatherNs = 150'000;

int watch(int epoll, int fd, uint64_t token) {
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.u64 = token;
  return ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : errno;
}

}  // namespace

FanoutEngine::FanoutEngine(const FanoutOptions& options, std::function<void()> waker)
    : options_(options),
      events_(std::move(waker)),
      sender_(send_counters_),
      // A raw link's ring has one producer.
      crew_(options.raw ? 0 : options.helpers),
      raw_(options.raw ? std::make_unique<RawPort>(*options.raw) : nullptr) {}

FanoutEngine::~FanoutEngine() { stop(); }

int FanoutEngine::start() {
  epoll_ = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_) return errno;
  wake_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_) return errno;
  if (const int error = watch(epoll_.get(), wake_.get(), kWakeToken); error != 0) return error;
  thread_ = std::thread([this] { run(); });
  return 0;
}

void FanoutEngine::stop() {
  if (!thread_.joinable()) return;
  stopping_.store(true, std::memory_order_release);
  post([] {});
  thread_.join();
  sources_.clear();
  unsettled_.clear();
  tracks_.clear();
  for (const auto& [port, id] : raw_ids_) raw_->close(port);
  raw_ids_.clear();
  sockets_.clear();
  const std::lock_guard lock(mutex_);
  known_tracks_.clear();
  known_receivers_.clear();
}

void FanoutEngine::post(std::function<void()> command) {
  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    commands_.push_back(std::move(command));
    wake = !commands_waiting_.exchange(true, std::memory_order_acq_rel);
  }
  if (!wake) return;
  const uint64_t one = 1;
  // An eventfd's write fails only when its count would overflow, and then the thread is awake
  // anyway.
  [[maybe_unused]] const ssize_t n = ::write(wake_.get(), &one, sizeof(one));
}

int FanoutEngine::open_socket(const std::optional<IpEndpoint>& local, uint16_t port, uint32_t& id,
                              uint16_t& bound_port) {
  if (raw_) {
    bound_port = port;
    return open_raw_socket(port, id);
  }
  auto pair = std::make_shared<SocketPair>();
  const auto open_one = [&](const IpEndpoint& at, std::unique_ptr<UdpSocket>& into) {
    auto socket = std::make_unique<UdpSocket>();
    const int error = socket->open(at, options_.socket);
    if (error == 0) into = std::move(socket);
    return error;
  };
  {
    const std::lock_guard lock(mutex_);
    if (socket_count_ >= kSocketsMax) return ENFILE;
  }
  if (local) {
    IpEndpoint at = *local;
    at.set_port(port);
    const int error = open_one(at, at.is_v6() ? pair->v6 : pair->v4);
    if (error != 0) return error;
    bound_port = (at.is_v6() ? pair->v6 : pair->v4)->local().port();
  } else {
    // A free port of IPv4 may be taken in IPv6: try a few before giving up.
    int error = 0;
    for (int attempt = 0; attempt < 16; attempt++) {
      error = open_one(*IpEndpoint::parse("0.0.0.0", port), pair->v4);
      if (error != 0) return error;
      bound_port = pair->v4->local().port();
      error = open_one(*IpEndpoint::parse("::", bound_port), pair->v6);
      if (error != EADDRINUSE || port != 0) break;
      pair->v4.reset();
    }
    // A machine without IPv6 serves IPv4 alone; a taken port is an error all the same.
    if (error == EADDRINUSE || error == EACCES) return error;
  }
  {
    const std::lock_guard lock(mutex_);
    id = next_id_++;
    socket_count_++;
  }
  post([this, id, pair] {
    SocketPair& kept = sockets_[id];
    kept = std::move(*pair);
    if (kept.v4) watch(epoll_.get(), kept.v4->fd(), uint64_t{id} << 1);
    if (kept.v6) watch(epoll_.get(), kept.v6->fd(), uint64_t{id} << 1 | 1);
  });
  return 0;
}

// The port is the caller's to choose: who else has it on the link is not known here.
int FanoutEngine::open_raw_socket(uint16_t port, uint32_t& id) {
  if (port == 0) return EINVAL;
  {
    const std::lock_guard lock(mutex_);
    if (socket_count_ >= kSocketsMax) return ENFILE;
    id = next_id_++;
    socket_count_++;
  }
  post([this, id, port] {
    SocketPair& kept = sockets_[id];
    kept.raw = std::make_unique<SendSocket>();
    kept.raw->raw = raw_.get();
    kept.raw->raw_port = port;
    raw_ids_[port] = id;
    raw_->open(port);
  });
  return 0;
}

void FanoutEngine::close_socket(uint32_t id) {
  post([this, id] {
    const auto found = sockets_.find(id);
    if (found != sockets_.end() && found->second.raw) {
      raw_->close(found->second.raw->raw_port);
      raw_ids_.erase(found->second.raw->raw_port);
    }
    if (sockets_.erase(id) == 0) return;
    std::erase_if(sources_, [id](const auto& entry) { return entry.first.socket == id; });
    const std::lock_guard lock(mutex_);
    socket_count_--;
  });
}

uint32_t FanoutEngine::open_track(const TrackOptions& options, uint32_t leader) {
  uint32_t id = 0;
  std::shared_ptr<RtpTrack> track;
  {
    const std::lock_guard lock(mutex_);
    if (known_tracks_.size() >= kTracksMax) return 0;
    id = next_id_++;
    track = std::make_shared<RtpTrack>(id, options);
    known_tracks_[id] = track;
  }
  post([this, id, leader, track] {
    tracks_[id] = track;
    if (const auto found = tracks_.find(leader); leader != 0 && found != tracks_.end()) {
      found->second->followers.push_back(id);
      track->set_follows(true);
    }
  });
  return id;
}

void FanoutEngine::close_track(uint32_t id) {
  {
    const std::lock_guard lock(mutex_);
    if (known_tracks_.erase(id) == 0) return;
  }
  post([this, id] {
    const auto found = tracks_.find(id);
    if (found == tracks_.end()) return;
    if (found->second->pending()) flush_frame(*found->second, false);
    std::vector<uint32_t> gone;
    for (const auto& receiver : found->second->receivers) {
      receiver->state.store(Receiver::State::kRemoved, std::memory_order_relaxed);
      gone.push_back(receiver->id);
    }
    std::erase_if(sources_, [id](const auto& entry) { return entry.second == id; });
    std::erase(pending_tracks_, id);
    for (auto& [other, track] : tracks_) std::erase(track->followers, id);
    tracks_.erase(found);
    const std::lock_guard lock(mutex_);
    for (const uint32_t receiver : gone) known_receivers_.erase(receiver);
  });
}

void FanoutEngine::add_source(uint32_t track, uint32_t socket, const IpEndpoint& from) {
  post([this, track, socket, from] {
    if (tracks_.contains(track)) sources_[SourceKey{socket, from}] = track;
  });
}

void FanoutEngine::remove_source(uint32_t track, uint32_t socket, const IpEndpoint& from) {
  post([this, track, socket, from] {
    const auto found = sources_.find(SourceKey{socket, from});
    if (found != sources_.end() && found->second == track) sources_.erase(found);
  });
}

void FanoutEngine::push(uint32_t track, std::span<const uint8_t> bytes,
                        std::span<const uint32_t> offsets) {
  {
    const std::lock_guard lock(mutex_);
    if (push_bytes_ + bytes.size() > kPushBytesMax) {
      counters_.drop_push_queue.fetch_add(offsets.size() / 2, std::memory_order_relaxed);
      return;
    }
    push_bytes_ += bytes.size();
  }
  post([this, track, held = std::vector<uint8_t>(bytes.begin(), bytes.end()),
        at = std::vector<uint32_t>(offsets.begin(), offsets.end())] {
    {
      const std::lock_guard lock(mutex_);
      push_bytes_ -= held.size();
    }
    const auto found = tracks_.find(track);
    if (found == tracks_.end()) {
      bump(counters_.drop_no_track, at.size() / 2);
      return;
    }
    const Arrival arrival = arrival_now();
    bump(counters_.pushed_packets, at.size() / 2);
    for (size_t i = 0; i + 1 < at.size(); i += 2) {
      packet(*found->second, std::span(held).subspan(at[i], at[i + 1]), arrival);
    }
  });
}

std::optional<StartPosition> FanoutEngine::add_receiver(uint32_t track_id,
                                                        const ReceiverOptions& options) {
  auto receiver = std::make_shared<Receiver>();
  std::shared_ptr<RtpTrack> track;
  {
    const std::lock_guard lock(mutex_);
    const auto found = known_tracks_.find(track_id);
    if (found == known_tracks_.end() || known_receivers_.size() >= kReceiversMax)
      return std::nullopt;
    track = found->second;
    receiver->id = next_id_++;
    known_receivers_[receiver->id] = receiver;
  }
  receiver->track = track_id;
  receiver->socket = static_cast<int>(options.socket);
  receiver->report_socket = static_cast<int>(options.report_socket);
  receiver->rtp = options.rtp;
  receiver->rtcp = options.rtp;
  receiver->rtcp.set_port(options.report_port);
  receiver->from_key = options.from_key;
  const TrackHead head = track->head();
  StartPosition position = {.id = receiver->id, .ssrc = head.ssrc};
  if (options.from_key && head.key_segment) {
    receiver->cursor = {head.key_segment, 0};
    position.seq = head.key_seq;
    position.rtp_time = head.key_rtp_time;
  } else if (head.any_packet) {
    position.seq = static_cast<uint16_t>(head.last_seq + 1);
    position.rtp_time = head.last_rtp_time;
  }
  post([this, receiver] {
    const auto found = tracks_.find(receiver->track);
    if (found == tracks_.end()) return;
    found->second->receivers.push_back(receiver);
    found->second->note_receivers(found->second->receivers.size());
  });
  return position;
}

void FanoutEngine::start_receiver(uint32_t id) {
  post([this, receiver = std::const_pointer_cast<Receiver>(this->receiver(id))] {
    if (receiver) begin_receiver(receiver, mono_now());
  });
}

void FanoutEngine::move_receiver(uint32_t id, const IpEndpoint& to, uint16_t report_port) {
  post([receiver = std::const_pointer_cast<Receiver>(this->receiver(id)), to, report_port] {
    if (!receiver) return;
    const uint16_t rtp_port = to.port() != 0 ? to.port() : receiver->rtp.port();
    const uint16_t rtcp_port = report_port != 0 ? report_port : receiver->rtcp.port();
    receiver->rtp = to;
    receiver->rtp.set_port(rtp_port);
    receiver->rtcp = to;
    receiver->rtcp.set_port(rtcp_port);
    receiver->gso_refused_bytes = UINT32_MAX;
  });
}

void FanoutEngine::remove_receiver(uint32_t id) {
  std::shared_ptr<Receiver> receiver;
  {
    const std::lock_guard lock(mutex_);
    const auto found = known_receivers_.find(id);
    if (found == known_receivers_.end()) return;
    receiver = found->second;
    known_receivers_.erase(found);
  }
  post([this, receiver] { detach_receiver(*receiver); });
}

void FanoutEngine::tap(uint32_t track, bool on) {
  post([this, track, on] {
    const auto found = tracks_.find(track);
    if (found != tracks_.end()) found->second->tapped = on;
  });
}

std::optional<StartPosition> FanoutEngine::cached(uint32_t track_id) {
  std::shared_ptr<RtpTrack> track;
  StartPosition position;
  {
    const std::lock_guard lock(mutex_);
    const auto found = known_tracks_.find(track_id);
    if (found == known_tracks_.end()) return std::nullopt;
    track = found->second;
    position.id = next_id_++;
  }
  const TrackHead head = track->head();
  position.ssrc = head.ssrc;
  LogCursor cursor;
  if (head.key_segment) {
    cursor = {head.key_segment, 0};
    position.seq = head.key_seq;
    position.rtp_time = head.key_rtp_time;
  } else if (head.any_packet) {
    position.seq = static_cast<uint16_t>(head.last_seq + 1);
    position.rtp_time = head.last_rtp_time;
  }
  post([this, track_id, cursor, ticket = position.id] {
    const auto found = tracks_.find(track_id);
    if (found != tracks_.end()) emit_cached(*found->second, cursor, ticket);
  });
  return position;
}

void FanoutEngine::send(uint32_t socket, const IpEndpoint& to, std::span<const uint8_t> bytes) {
  post([this, socket, to, held = std::vector<uint8_t>(bytes.begin(), bytes.end())] {
    send_now(socket, to, held);
  });
}

void FanoutEngine::send_report(uint32_t track, const Report& report, uint32_t receiver) {
  post([this, track, report, receiver] {
    const auto found = tracks_.find(track);
    if (found == tracks_.end() || !found->second->any_packet()) return;
    const auto& all = found->second->receivers;
    // A round of reports to thousands would stand in the way of media; a BYE may not wait, its
    // track is closing.
    if (receiver == 0 && !report.bye && all.size() > kReportsAtOnce) {
      // One round a track at a time: a round that is still under way is as good.
      for (const PendingReport& pending : reports_) {
        if (pending.track == track) return;
      }
      reports_.push_back({track, report, all});
      next_report_ = mono_now();
      return;
    }
    for (const auto& each : all) {
      if (receiver == 0 || each->id == receiver) send_report_to(*found->second, *each, report);
    }
  });
}

std::optional<TrackHead> FanoutEngine::track_head(uint32_t track) const {
  std::shared_ptr<RtpTrack> found;
  {
    const std::lock_guard lock(mutex_);
    const auto at = known_tracks_.find(track);
    if (at == known_tracks_.end()) return std::nullopt;
    found = at->second;
  }
  return found->head();
}

std::shared_ptr<const Receiver> FanoutEngine::receiver(uint32_t id) const {
  const std::lock_guard lock(mutex_);
  const auto found = known_receivers_.find(id);
  return found == known_receivers_.end() ? nullptr : found->second;
}

void FanoutEngine::run_commands() {
  std::vector<std::function<void()>> commands;
  {
    const std::lock_guard lock(mutex_);
    commands.swap(commands_);
    commands_waiting_.store(false, std::memory_order_release);
  }
  for (auto& command : commands) command();
}

int64_t FanoutEngine::wait_ns(int64_t now) const {
  int64_t until = INT64_MAX;
  for (const uint32_t id : pending_tracks_) {
    const auto found = tracks_.find(id);
    if (found != tracks_.end())
      until = std::min(until, found->second->pending_since_mono() + options_.hold_ns);
  }
  if (!unsettled_.empty()) until = std::min(until, next_catch_up_);
  if (!reports_.empty()) until = std::min(until, next_report_);
  return until == INT64_MAX ? -1 : std::max<int64_t>(0, until - now);
}

void FanoutEngine::wait(int64_t timeout_ns) {
  std::array<epoll_event, 64> ready;
  int count = -1;
  if (raw_ && !raw_->sleep()) timeout_ns = 0;
  if (epoll_ns_) {
    timespec timeout = {.tv_sec = timeout_ns / 1'000'000'000,
                        .tv_nsec = timeout_ns % 1'000'000'000};
    count = static_cast<int>(::syscall(SYS_epoll_pwait2, epoll_.get(), ready.data(), ready.size(),
                                       timeout_ns < 0 ? nullptr : &timeout, nullptr, 0));
    if (count < 0 && errno == ENOSYS) epoll_ns_ = false;
  }
  if (!epoll_ns_) {
    const int timeout_ms =
        timeout_ns < 0 ? -1 : static_cast<int>((timeout_ns + 999'999) / 1'000'000);
    count = ::epoll_wait(epoll_.get(), ready.data(), static_cast<int>(ready.size()), timeout_ms);
  }
  bump(counters_.wakeups, 1);
  if (raw_) raw_->wake();
  // The wake-up is taken back before the commands are: one that comes in between wakes the thread again.
  uint64_t value = 0;
  [[maybe_unused]] const ssize_t n = ::read(wake_.get(), &value, sizeof(value));
  run_commands();
  for (int i = 0; i < count; i++) {
    const uint64_t token = ready[static_cast<size_t>(i)].data.u64;
    if (token == kWakeToken) continue;
    receive(static_cast<uint32_t>(token >> 1), (token & 1) != 0);
  }
  if (raw_) receive_raw();
}

void FanoutEngine::run() {
  ::prctl(PR_SET_NAME, "apo-native");
  // Signals are the app's business.
  sigset_t all;
  sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
  while (!stopping_.load(std::memory_order_acquire)) {
    if (!pending_tracks_.empty()) {
      const timespec gather = {.tv_sec = 0, .tv_nsec = kGatherNs};
      ::nanosleep(&gather, nullptr);
    }
    wait(wait_ns(mono_now()));
    const int64_t now = mono_now();
    if (!pending_tracks_.empty()) flush_due(now);
    if (!unsettled_.empty() && now >= next_catch_up_) catch_up(now);
    if (!reports_.empty() && now >= next_report_) report_on(now);
  }
  run_commands();
}

}  // namespace apo
