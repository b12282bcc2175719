// The fan-out engine as a JavaScript class. The typed mirror is `NativeFanout` in
// src/layer3-ip/native.ts, and src/layer3-ip/fanout.ts is its only user: it validates with words,
// this file checks again before memory is touched.
#include <cmath>
#include <cstring>

#include "fanout/fanout_engine.h"
#include "napi/address_records.h"
#include "napi/napi_arguments.h"
#include "napi/registration.h"
#include "napi/shared_arrays.h"

namespace apo {
namespace {

// Words of one event in the array that `takeEvents` fills; mirrored in src/layer3-ip/fanout.ts.
constexpr size_t kEventWords = 12;
constexpr size_t kEventsATake = 256;
constexpr size_t kHelpersMax = 16;
// Where the arguments of an engine on a raw link begin, and where its port words have the open ports.
constexpr size_t kRawFirst = 6;
constexpr size_t kPortUdpWord = 32;

class FanoutWrap : public Napi::ObjectWrap<FanoutWrap> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "NativeFanout",
                       {InstanceAccessor<&FanoutWrap::wake_fd>("wakeFd"),
                        InstanceMethod<&FanoutWrap::open_socket>("openSocket"),
                        InstanceMethod<&FanoutWrap::close_socket>("closeSocket"),
                        InstanceMethod<&FanoutWrap::open_track>("openTrack"),
                        InstanceMethod<&FanoutWrap::close_track>("closeTrack"),
                        InstanceMethod<&FanoutWrap::add_source>("addSource"),
                        InstanceMethod<&FanoutWrap::remove_source>("removeSource"),
                        InstanceMethod<&FanoutWrap::push>("push"),
                        InstanceMethod<&FanoutWrap::add_receiver>("addReceiver"),
                        InstanceMethod<&FanoutWrap::start_receiver>("startReceiver"),
                        InstanceMethod<&FanoutWrap::move_receiver>("moveReceiver"),
                        InstanceMethod<&FanoutWrap::remove_receiver>("removeReceiver"),
                        InstanceMethod<&FanoutWrap::tap>("tap"),
                        InstanceMethod<&FanoutWrap::cached>("cached"),
                        InstanceMethod<&FanoutWrap::send>("send"),
                        InstanceMethod<&FanoutWrap::send_report>("sendReport"),
                        InstanceMethod<&FanoutWrap::track_status>("trackStatus"),
                        InstanceMethod<&FanoutWrap::receiver_status>("receiverStatus"),
                        InstanceMethod<&FanoutWrap::counters>("counters"),
                        InstanceMethod<&FanoutWrap::take_events>("takeEvents"),
                        InstanceMethod<&FanoutWrap::close>("close")});
  }

  // (holdNs, receiveBuffer, sendBuffer, gso, helpers, onEvents), and for an engine on a raw link (transmit ring,
  // pool, partition, port words, control words, wakeFd, addresses, receive ring, ...): mirrored in
  // src/layer3-ip/raw-engine.ts.
  explicit FanoutWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<FanoutWrap>(info) {
    const Arguments args(info);
    FanoutOptions options;
    options.hold_ns = static_cast<int64_t>(args.number(0));
    options.socket.receive_buffer = args.int32(1);
    options.socket.send_buffer = args.int32(2);
    options.socket.gso = args.boolean(3);
    options.helpers = std::min<size_t>(args.uint32(4), kHelpersMax);
    if (!args.good() || info.Length() < 6 || !info[5].IsFunction()) {
      args.fail(
          "NativeFanout: holdNs, receiveBuffer, sendBuffer, gso, helpers and a function are "
          "needed");
      return;
    }
    if (info.Length() > kRawFirst && !read_raw(info, args, options)) return;
    wake_ =
        Napi::ThreadSafeFunction::New(info.Env(), info[5].As<Napi::Function>(), "apo-fanout", 0, 1);
    engine_ = std::make_unique<FanoutEngine>(options, [this] { wake_.NonBlockingCall(); });
    if (const int error = engine_->start(); error != 0) {
      engine_.reset();
      wake_.Release();
      args.fail(std::string("NativeFanout: the thread could not start: ") + std::strerror(error));
      return;
    }
    // A worker or process that exits without close() must not leave the thread calling into a dead
    // environment.
    napi_add_env_cleanup_hook(info.Env(), &FanoutWrap::on_environment_exit, this);
  }

  ~FanoutWrap() override { stop(); }

 private:
  static void on_environment_exit(void* self) { static_cast<FanoutWrap*>(self)->stop(); }

  // The memory of a raw link's engine, which is held until the engine's thread has ended.
  bool read_raw(const Napi::CallbackInfo& info, const Arguments& args, FanoutOptions& options) {
    const auto transmit = RingMemory::attach(args.words(kRawFirst));
    const auto pool = FramePool::attach(args.words(kRawFirst + 1), args.uint32(kRawFirst + 2));
    const std::span<uint32_t> port = args.words(kRawFirst + 3);
    const std::span<uint32_t> control = args.words(kRawFirst + 4);
    const int wake_fd = args.int32(kRawFirst + 5);
    AddressSet addresses;
    const bool addressed = read_addresses(args.bytes(kRawFirst + 6), addresses);
    std::vector<RingMemory> receive;
    for (size_t i = kRawFirst + 7; i < info.Length(); ++i) {
      const auto ring = RingMemory::attach(args.words(i));
      if (ring && is_shared(info, i)) receive.push_back(*ring);
    }
    const bool shared = is_shared(info, kRawFirst) && is_shared(info, kRawFirst + 1) &&
                        is_shared(info, kRawFirst + 3) && is_shared(info, kRawFirst + 4);
    if (!args.good()) return false;
    if (!transmit || !pool || !shared || !addressed || control.empty() ||
        port.size() < kPortUdpWord + kPortBitmapWords ||
        receive.size() != info.Length() - (kRawFirst + 7) || receive.empty()) {
      args.fail("NativeFanout: rings, a pool, port and control words and addresses are needed");
      return false;
    }
    options.raw = RawPortOptions{receive,
                                 *transmit,
                                 *pool,
                                 port.subspan<kPortUdpWord, kPortBitmapWords>(),
                                 Doorbell(control.data(), wake_fd),
                                 addresses};
    for (const size_t i : {kRawFirst, kRawFirst + 1, kRawFirst + 3, kRawFirst + 4}) {
      kept_.push_back(Napi::Persistent(info[i].As<Napi::Object>()));
    }
    for (size_t i = kRawFirst + 7; i < info.Length(); ++i) {
      kept_.push_back(Napi::Persistent(info[i].As<Napi::Object>()));
    }
    return true;
  }

  // The eventfd that a raw link's threads ring; -1 when the engine has been closed.
  Napi::Value wake_fd(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), engine_ ? engine_->wake_fd() : -1);
  }

  // The engine's thread calls `wake_`: it ends first.
  void stop() {
    if (!engine_) return;
    engine_->stop();
    engine_.reset();
    kept_.clear();
    wake_.Release();
    napi_remove_env_cleanup_hook(Env(), &FanoutWrap::on_environment_exit, this);
  }

  bool ready(const Arguments& args) const {
    if (!engine_) args.fail("the fan-out engine has been closed");
    return engine_ != nullptr && args.good();
  }

  // (address | "", port) -> [id, port] or an errno
  Napi::Value open_socket(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    const std::string address = args.string(0);
    const uint16_t port = args.uint16(1);
    if (!ready(args)) return info.Env().Undefined();
    std::optional<IpEndpoint> local;
    if (!address.empty()) {
      local = IpEndpoint::parse(address, port);
      if (!local) return Napi::Number::New(info.Env(), EINVAL);
    }
    uint32_t id = 0;
    uint16_t bound = 0;
    const int error = engine_->open_socket(local, port, id, bound);
    if (error != 0) return Napi::Number::New(info.Env(), error);
    auto out = Napi::Array::New(info.Env(), 2);
    out.Set(0u, id);
    out.Set(1u, bound);
    return out;
  }

  void close_socket(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    const uint32_t id = args.uint32(0);
    if (ready(args)) engine_->close_socket(id);
  }

  // (payloadType, keyFrames, clockRate, cacheBytes, leader) -> id, 0 when the table is full
  Napi::Value open_track(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    TrackOptions options;
    options.payload_type = static_cast<uint8_t>(args.uint32(0) & 0x7f);
    const uint32_t codec = args.uint32(1);
    options.clock_rate = args.uint32(2);
    options.cache_bytes = static_cast<size_t>(args.number(3));
    const uint32_t leader = args.uint32(4);
    if (!ready(args)) return info.Env().Undefined();
    if (codec > static_cast<uint32_t>(KeyFrames::kAv1))
      return args.fail("openTrack: no such codec");
    options.key_frames = static_cast<KeyFrames>(codec);
    return Napi::Number::New(info.Env(), engine_->open_track(options, leader));
  }

  void close_track(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    const uint32_t id = args.uint32(0);
    if (ready(args)) engine_->close_track(id);
  }

  // (track, socket, address, port) -> false for an address that cannot be read
  Napi::Value add_source(const Napi::CallbackInfo& info) { return source(info, true); }
  Napi::Value remove_source(const Napi::CallbackInfo& info) { return source(info, false); }

  Napi::Value source(const Napi::CallbackInfo& info, bool add) {
    const Arguments args(info);
    const uint32_t track = args.uint32(0);
    const uint32_t socket = args.uint32(1);
    const auto from = IpEndpoint::parse(args.string(2), args.uint16(3));
    if (!ready(args)) return info.Env().Undefined();
    if (from)
      add ? engine_->add_source(track, socket, *from)
          : engine_->remove_source(track, socket, *from);
    return Napi::Boolean::New(info.Env(), from.has_value());
  }

  // (track, bytes, offsets, count) -> false when an offset lies outside `bytes`
  Napi::Value push(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    const uint32_t track = args.uint32(0);
    const auto bytes = args.bytes(1);
    const auto offsets = args.words(2);
    const size_t count = args.uint32(3);
    if (!ready(args)) return info.Env().Undefined();
    bool good = count <= offsets.size() / 2;
    for (size_t i = 0; good && i < count; i++) {
      const size_t at = offsets[2 * i];
      const size_t length = offsets[2 * i + 1];
      good = at <= bytes.size() && length <= bytes.size() - at;
    }
    if (good) engine_->push(track, bytes, offsets.first(2 * count));
    return Napi::Boolean::New(info.Env(), good);
  }

  // (track, socket, reportSocket, address, port, reportPort, fromKey) -> [id, seq, rtpTime, ssrc]
  // or an errno
  Napi::Value add_receiver(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    const uint32_t track = args.uint32(0);
    ReceiverOptions options;
    options.socket = args.uint32(1);
    options.report_socket = args.uint32(2);
    const auto to = IpEndpoint::parse(args.string(3), args.uint16(4));
    options.report_port = args.uint16(5);
    options.from_key = args.boolean(6);
    if (!ready(args)) return info.Env().Undefined();
    if (!to) return Napi::Number::New(info.Env(), EINVAL);
    options.rtp = *to;
    const auto position = engine_->add_receiver(track, options);
    if (!position) return Napi::Number::New(info.Env(), ENFILE);
    return start_position(info.Env(), *position);
  }

  static Napi::Value start_position(Napi::Env env, const StartPosition& position) {
    auto out = Napi::Array::New(env, 4);
    out.Set(0u, position.id);
    out.Set(1u, position.seq);
    out.Set(2u, position.rtp_time);
    out.Set(3u, position.ssrc);
    return out;
  }

  void start_receiver(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    const uint32_t id = args.uint32(0);
    if (ready(args)) engine_->start_receiver(id);
  }

  // (receiver, address, port, reportPort) -> false for an address that cannot be read
  Napi::Value move_receiver(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    const uint32_t id = args.uint32(0);
    const auto to = IpEndpoint::parse(args.string(1), args.uint16(2));
    const uint16_t report_port = args.uint16(3);
    if (!ready(args)) return info.Env().Undefined();
    if (to) engine_->move_receiver(id, *to, report_port);
    return Napi::Boolean::New(info.Env(), to.has_value());
  }

  void remove_receiver(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    const uint32_t id = args.uint32(0);
    if (ready(args)) engine_->remove_receiver(id);
  }

  void tap(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    const uint32_t track = args.uint32(0);
    const bool on = args.boolean(1);
    if (ready(args)) engine_->tap(track, on);
  }

  // (track) -> [ticket, seq, rtpTime, ssrc], or undefined for a track that is not there
  Napi::Value cached(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    const uint32_t track = args.uint32(0);
    if (!ready(args)) return info.Env().Undefined();
    const auto position = engine_->cached(track);
    return position ? start_position(info.Env(), *position) : info.Env().Undefined();
  }

  // (socket, address, port, bytes) -> false for an address that cannot be read
  Napi::Value send(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    const uint32_t socket = args.uint32(0);
    const auto to = IpEndpoint::parse(args.string(1), args.uint16(2));
    const auto bytes = args.bytes(3);
    if (!ready(args)) return info.Env().Undefined();
    if (to) engine_->send(socket, *to, bytes);
    return Napi::Boolean::New(info.Env(), to.has_value());
  }

  // (track, ntpSeconds, ntpFraction, rtpTime, cname, bye, receiver | 0)
  void send_report(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    Report report;
    const uint32_t track = args.uint32(0);
    report.ntp_seconds = args.uint32(1);
    report.ntp_fraction = args.uint32(2);
    report.rtp_time = args.uint32(3);
    report.cname = args.string(4);
    report.bye = args.boolean(5);
    const uint32_t receiver = args.uint32(6);
    if (ready(args)) engine_->send_report(track, report, receiver);
  }

  // (track, Float64Array of 15) -> false for a track that is not there
  Napi::Value track_status(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    const uint32_t track = args.uint32(0);
    const auto out = args.doubles(1);
    if (!ready(args)) return info.Env().Undefined();
    const auto head = engine_->track_head(track);
    if (!head || out.size() < 15) return Napi::Boolean::New(info.Env(), false);
    const TrackHead& h = *head;
    const double values[15] = {static_cast<double>(h.packets),
                               static_cast<double>(h.bytes),
                               static_cast<double>(h.ssrc),
                               static_cast<double>(h.last_seq),
                               static_cast<double>(h.last_rtp_time),
                               static_cast<double>(h.last_arrival_wall) / 1e6,
                               static_cast<double>(h.lost),
                               h.jitter,
                               static_cast<double>(h.receivers),
                               static_cast<double>(h.cached_packets),
                               static_cast<double>(h.cached_bytes),
                               static_cast<double>(h.extended_seq),
                               static_cast<double>(h.base_seq),
                               h.any_packet ? 1.0 : 0.0,
                               0.0};
    std::memcpy(out.data(), values, sizeof(values));
    return Napi::Boolean::New(info.Env(), true);
  }

  // (receiver) -> [packets, octets, dropped, state], or undefined for a receiver that is not there
  Napi::Value receiver_status(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    const uint32_t id = args.uint32(0);
    if (!ready(args)) return info.Env().Undefined();
    const auto receiver = engine_->receiver(id);
    if (!receiver) return info.Env().Undefined();
    auto out = Napi::Array::New(info.Env(), 4);
    out.Set(0u, static_cast<double>(receiver->packets.load(std::memory_order_relaxed)));
    out.Set(1u, static_cast<double>(receiver->octets.load(std::memory_order_relaxed)));
    out.Set(2u, static_cast<double>(receiver->dropped.load(std::memory_order_relaxed)));
    out.Set(3u, static_cast<uint32_t>(receiver->state.load(std::memory_order_relaxed)));
    return out;
  }

  Napi::Value counters(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    if (!ready(args)) return info.Env().Undefined();
    auto out = Napi::Object::New(info.Env());
    const auto set = [&out](const char* name, const std::atomic<uint64_t>& value) {
      out.Set(name, static_cast<double>(value.load(std::memory_order_relaxed)));
    };
    const EngineCounters& e = engine_->counters();
    set("wakeups", e.wakeups);
    set("receive.calls", e.receive_calls);
    set("receive.messages", e.receive_messages);
    set("receive.packets", e.receive_packets);
    set("receive.bytes", e.receive_bytes);
    set("receive.gro_packets", e.receive_gro_packets);
    set("receive.pushed_packets", e.pushed_packets);
    set("receive.datagrams", e.datagrams);
    set("frames", e.frames);
    set("frames.by_hold", e.frames_by_hold);
    set("frames.key", e.key_frames);
    set("reports", e.reports);
    set("drop.malformed", e.drop_malformed);
    set("drop.truncated", e.drop_truncated);
    set("drop.no_track", e.drop_no_track);
    set("drop.stray_rate", e.drop_stray_rate);
    set("drop.event_queue", e.drop_event_queue);
    set("drop.tap_queue", e.drop_tap_queue);
    set("drop.push_queue", e.drop_push_queue);
    set("drop.kernel_receive", e.drop_kernel_receive);
    set("drop.send_datagram", e.drop_send_datagram);
    set("key_wait_expired", e.key_wait_expired);
    set("catchup_skips", e.catchup_skips);
    const SendCounters& s = engine_->send_counters();
    set("send.packets", s.packets);
    set("send.bytes", s.bytes);
    set("send.messages", s.sends);
    set("send.gso_messages", s.gso_sends);
    set("send.gso_packets", s.gso_packets);
    set("send.calls", s.calls);
    set("send.gso_refused", s.gso_refused);
    set("send.waits", s.waits);
    set("drop.send_full", s.dropped_full);
    set("drop.send_unreachable", s.dropped_unreachable);
    set("drop.send_denied", s.dropped_denied);
    set("drop.send_size", s.dropped_size);
    set("drop.send_other", s.dropped_other);
    return out;
  }

  // (words, bytes, offsets) -> number of events written. One that does not fit waits for the next
  // call; `bytes` holds at least one whole event (64 KiB) by the caller's word, which is checked
  // here.
  Napi::Value take_events(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    const auto words = args.words(0);
    const auto bytes = args.bytes(1);
    const auto offsets = args.words(2);
    if (!ready(args)) return info.Env().Undefined();
    constexpr size_t kAddressBytes = 64;
    const size_t per_event = kAddressBytes;
    const size_t events_max = std::min(words.size() / kEventWords, kEventsATake);
    if (bytes.size() < 65'536 + events_max * per_event || offsets.size() < 65'536) {
      return args.fail("takeEvents: the arrays are too small");
    }
    taken_.clear();
    engine_->events().take(taken_, bytes.size() - events_max * per_event, events_max);
    size_t at = 0;
    size_t offset_at = 0;
    for (size_t i = 0; i < taken_.size(); i++) {
      const FanoutEvent& event = taken_[i];
      uint32_t* w = words.data() + i * kEventWords;
      const std::string address =
          event.kind == FanoutEvent::Kind::kDatagram ? event.from.address() : std::string();
      w[0] = static_cast<uint32_t>(event.kind);
      w[1] = event.subject;
      w[2] = event.kind == FanoutEvent::Kind::kDatagram ? event.from.port() : event.ticket;
      w[3] = static_cast<uint32_t>(at);
      w[4] = static_cast<uint32_t>(event.bytes.size());
      std::memcpy(bytes.data() + at, event.bytes.data(), event.bytes.size());
      at += event.bytes.size();
      w[5] = static_cast<uint32_t>(at);
      w[6] = static_cast<uint32_t>(address.size());
      std::memcpy(bytes.data() + at, address.data(), address.size());
      at += address.size();
      w[7] = (event.key ? 1u : 0u) | (event.last ? 2u : 0u);
      const size_t room = offsets.size() - offset_at;
      const size_t kept = std::min(room, event.offsets.size());
      w[8] = static_cast<uint32_t>(kept);
      w[9] = event.rtp_time;
      w[10] = event.seq;
      w[11] = static_cast<uint32_t>(offset_at);
      std::memcpy(offsets.data() + offset_at, event.offsets.data(), kept * sizeof(uint32_t));
      offset_at += kept;
    }
    return Napi::Number::New(info.Env(), static_cast<double>(taken_.size()));
  }

  void close(const Napi::CallbackInfo&) { stop(); }

  Napi::ThreadSafeFunction wake_;
  std::unique_ptr<FanoutEngine> engine_;
  std::vector<Napi::ObjectReference> kept_;
  std::vector<FanoutEvent> taken_;
};

}  // namespace

void register_fanout(Napi::Env env, Napi::Object exports) {
  exports.Set("NativeFanout", FanoutWrap::define(env));
}

}  // namespace apo
