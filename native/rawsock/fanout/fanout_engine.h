// The fan-out engine: UDP sockets, tracks and receivers on a thread of their own.
//
// Public methods are called by the app's thread; all but the few that say otherwise only queue a
// command, so that a packet sees the receivers before a change or after it. Private ones run on the
// engine's thread. Nothing here knows of JavaScript: `fanout_napi.cc` is the only one that does.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "fanout/fanout_events.h"
#include "fanout/gso_sender.h"
#include "fanout/rtp_track.h"
#include "fanout/send_crew.h"
#include "fanout/udp_socket.h"

namespace apo {

struct FanoutOptions {
  int64_t hold_ns = 5'000'000;
  UdpSocketOptions socket;
  // On a raw link: where packets come from and go to, instead of sockets.
  std::optional<RawPortOptions> raw;
  // Threads that help with long sweeps.
  size_t helpers = 0;
};

struct StartPosition {
  uint32_t id = 0;  // receiver or ticket
  int32_t seq = -1;
  uint32_t rtp_time = 0;
  uint32_t ssrc = 0;
};

struct ReceiverOptions {
  uint32_t socket = 0;
  uint32_t report_socket = 0;
  IpEndpoint rtp;
  uint16_t report_port = 0;
  bool from_key = true;
};

struct Report {
  uint32_t ntp_seconds = 0;
  uint32_t ntp_fraction = 0;
  uint32_t rtp_time = 0;
  std::string cname;
  bool bye = false;
};

// What the engine itself counts; written by its thread (drops of commands: by the app's), read by
// any.
struct EngineCounters {
  std::atomic<uint64_t> wakeups{0};
  std::atomic<uint64_t> receive_calls{0};
  std::atomic<uint64_t> receive_messages{0};
  std::atomic<uint64_t> receive_packets{0};
  std::atomic<uint64_t> receive_bytes{0};
  std::atomic<uint64_t> receive_gro_packets{0};
  std::atomic<uint64_t> pushed_packets{0};
  std::atomic<uint64_t> frames{0};
  std::atomic<uint64_t> frames_by_hold{0};
  std::atomic<uint64_t> key_frames{0};
  std::atomic<uint64_t> reports{0};
  std::atomic<uint64_t> datagrams{0};
  std::atomic<uint64_t> drop_malformed{0};
  std::atomic<uint64_t> drop_truncated{0};
  std::atomic<uint64_t> drop_no_track{0};
  std::atomic<uint64_t> drop_stray_rate{0};
  std::atomic<uint64_t> drop_event_queue{0};
  std::atomic<uint64_t> drop_tap_queue{0};
  std::atomic<uint64_t> drop_push_queue{0};
  std::atomic<uint64_t> drop_kernel_receive{0};
  std::atomic<uint64_t> drop_send_datagram{0};
  std::atomic<uint64_t> key_wait_expired{0};
  std::atomic<uint64_t> catchup_skips{0};
};

class FanoutEngine {
 public:
  static constexpr size_t kSocketsMax = 1'024;
  static constexpr size_t kTracksMax = 4'096;
  static constexpr size_t kReceiversMax = 1u << 17;
  static constexpr size_t kPushBytesMax = 64u << 20;
  static constexpr size_t kReportsAtOnce = 32;

  FanoutEngine(const FanoutOptions& options, std::function<void()> waker);
  ~FanoutEngine();
  FanoutEngine(const FanoutEngine&) = delete;
  FanoutEngine& operator=(const FanoutEngine&) = delete;

  // 0 or an errno.
  int start();
  // The eventfd that the engine's thread sleeps on; a raw link's threads ring it. Known once it has started.
  [[nodiscard]] int wake_fd() const { return wake_.get(); }
  // Ends the thread and closes everything. Idempotent; blocks for as long as one round of sends
  // takes.
  void stop();

  // Binds at once, so that errors are told here. An unspecified address binds both families. 0 or
  // an errno.
  int open_socket(const std::optional<IpEndpoint>& local, uint16_t port, uint32_t& id,
                  uint16_t& bound_port);
  void close_socket(uint32_t id);
  // 0: the table is full.
  uint32_t open_track(const TrackOptions& options, uint32_t leader);
  void close_track(uint32_t id);
  void add_source(uint32_t track, uint32_t socket, const IpEndpoint& from);
  void remove_source(uint32_t track, uint32_t socket, const IpEndpoint& from);
  // `offsets` holds pairs of offset and length into `bytes`, checked by the caller.
  void push(uint32_t track, std::span<const uint8_t> bytes, std::span<const uint32_t> offsets);
  // nullopt: no such track, or the table is full.
  std::optional<StartPosition> add_receiver(uint32_t track, const ReceiverOptions& options);
  void start_receiver(uint32_t id);
  void move_receiver(uint32_t id, const IpEndpoint& to, uint16_t report_port);
  void remove_receiver(uint32_t id);
  void tap(uint32_t track, bool on);
  std::optional<StartPosition> cached(uint32_t track);
  void send(uint32_t socket, const IpEndpoint& to, std::span<const uint8_t> bytes);
  void send_report(uint32_t track, const Report& report, uint32_t receiver);

  std::optional<TrackHead> track_head(uint32_t track) const;
  std::shared_ptr<const Receiver> receiver(uint32_t id) const;
  [[nodiscard]] const EngineCounters& counters() const { return counters_; }
  [[nodiscard]] const SendCounters& send_counters() const { return send_counters_; }
  FanoutEventQueue& events() { return events_; }

 private:
  // One number for the app, a socket a family underneath.
  struct SocketPair {
    std::unique_ptr<UdpSocket> v4;
    std::unique_ptr<UdpSocket> v6;
    std::unique_ptr<SendSocket> raw;  // on a raw link, for both families
    uint32_t kernel_drops_v4 = 0;
    uint32_t kernel_drops_v6 = 0;
  };
  struct SourceKey {
    uint32_t socket;
    IpEndpoint from;
    friend bool operator==(const SourceKey&, const SourceKey&) = default;
  };
  struct SourceHash {
    size_t operator()(const SourceKey& key) const { return key.from.hash() * 31 + key.socket; }
  };

  void post(std::function<void()> command);
  void run();
  void run_commands();
  int64_t wait_ns(int64_t now) const;
  void wait(int64_t timeout_ns);

  void receive(uint32_t id, bool v6);
  void receive_raw();
  int open_raw_socket(uint16_t port, uint32_t& id);
  void note_kernel_drops(int count, uint32_t& known);
  void take_batch(uint32_t id, int count);
  RtpTrack* source_track(uint32_t socket, const IpEndpoint& from);
  void datagram(uint32_t socket, const IpEndpoint& from, std::span<const uint8_t> bytes,
                const Arrival& arrival);
  void stray(uint32_t socket, const IpEndpoint& from, std::span<const uint8_t> bytes,
             const Arrival& arrival);
  void packet(RtpTrack& track, std::span<const uint8_t> bytes, const Arrival& arrival);

  void flush_frame(RtpTrack& track, bool by_hold);
  void flush_due(int64_t now);
  void tap_frame(RtpTrack& track);
  void emit_frames(RtpTrack& track, std::span<const LoggedPacket> packets, uint32_t ticket,
                   bool key, bool last);
  void emit_cached(RtpTrack& track, LogCursor cursor, uint32_t ticket);

  void begin_receiver(const std::shared_ptr<Receiver>& receiver, int64_t now);
  void detach_receiver(Receiver& receiver);
  void catch_up(int64_t now);
  bool catch_up_step(RtpTrack& track, Receiver& receiver, int64_t now);
  SendSocket* send_socket(uint32_t id, const IpEndpoint& to);
  void send_now(uint32_t socket, const IpEndpoint& to, std::span<const uint8_t> bytes);
  void report_on(int64_t now);
  void send_report_to(const RtpTrack& track, const Receiver& receiver, const Report& report);

  FanoutOptions options_;
  FanoutEventQueue events_;
  EngineCounters counters_;
  SendCounters send_counters_;
  GsoSender sender_;
  SendCrew crew_;
  ReceiveBatch batch_;
  std::unique_ptr<RawPort> raw_;
  std::unordered_map<uint16_t, uint32_t> raw_ids_;  // sockets by port
  UniqueFd epoll_;
  UniqueFd wake_;
  std::thread thread_;
  std::atomic<bool> stopping_{false};
  bool epoll_ns_ = true;  // the kernel has epoll_pwait2

  // The app's side: names of what exists. `mutex_` also guards the commands.
  mutable std::mutex mutex_;
  std::vector<std::function<void()>> commands_;
  size_t push_bytes_ = 0;
  std::atomic<bool> commands_waiting_{false};
  uint32_t next_id_ = 1;
  std::unordered_map<uint32_t, std::shared_ptr<RtpTrack>> known_tracks_;
  std::unordered_map<uint32_t, std::shared_ptr<Receiver>> known_receivers_;
  size_t socket_count_ = 0;

  // The engine's thread only.
  std::unordered_map<uint32_t, SocketPair> sockets_;
  std::unordered_map<uint32_t, std::shared_ptr<RtpTrack>> tracks_;
  std::unordered_map<SourceKey, uint32_t, SourceHash> sources_;
  std::vector<uint32_t> pending_tracks_;
  std::vector<std::shared_ptr<Receiver>> unsettled_;  // waiting for a key frame, or catching up
  std::vector<SendRun> runs_;
  std::vector<SendTarget> targets_;
  struct PendingReport {
    uint32_t track;
    Report report;
    std::vector<std::shared_ptr<Receiver>> to;
  };
  std::vector<PendingReport> reports_;
  int64_t next_report_ = 0;
  size_t catch_up_from_ = 0;
  int64_t next_catch_up_ = 0;
  double stray_tokens_ = 0;
  int64_t stray_at_ = 0;
};

}  // namespace apo
