// The native thread of one queue of a link as a JavaScript class. The typed mirror is in
// src/layer3-ip/native.ts; src/layer3-ip/raw-link.ts is its user.
//
// Every shared array that the thread works on is held by a reference until the thread has ended:
// optimised JavaScript lets go of memory earlier than its source suggests.
#include <sys/eventfd.h>

#include <cerrno>
#include <map>

#include "napi/capture_napi.h"
#include "napi/guard_napi.h"
#include "napi/napi_arguments.h"
#include "napi/native_link_napi.h"
#include "napi/registration.h"
#include "napi/shared_arrays.h"
#include "thread/native_thread.h"
#include "util/unique_fd.h"

namespace apo {
namespace {

// What JavaScript shares with the thread; mirrored in src/layer3-ip/packet-port.ts. The control words,
// one set a thread:
constexpr size_t kControlDoorbellWord = 0;
constexpr size_t kControlWords = 16;
// The words that one worker shares with the threads of all queues:
constexpr size_t kPortDoorbellWord = 0;
constexpr size_t kPortUdpWord = 32;
constexpr size_t kPortTcpWord = kPortUdpWord + kPortBitmapWords;
constexpr size_t kPortWords = kPortTcpWord + kPortBitmapWords;

class LinkThreadWrap : public Napi::ObjectWrap<LinkThreadWrap> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "NativeLinkThread",
                       {InstanceAccessor<&LinkThreadWrap::wake_fd>("wakeFd"),
                        InstanceMethod<&LinkThreadWrap::start>("start"),
                        InstanceMethod<&LinkThreadWrap::attach_worker>("attachWorker"),
                        InstanceMethod<&LinkThreadWrap::detach_worker>("detachWorker"),
                        InstanceMethod<&LinkThreadWrap::close>("close")});
  }

  // (link, queue, keyLow, keyHigh, pool, partition, control, owners, counters, guard, capture); the last
  // two may be undefined.
  explicit LinkThreadWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<LinkThreadWrap>(info) {
    const Arguments args(info);
    link_ = info.Length() > 0 ? link_from(info[0]) : nullptr;
    queue_ = args.uint32(1);
    key_ = {args.uint32(2), args.uint32(3)};
    const std::span<uint32_t> pool = args.words(4);
    const uint32_t partition = args.uint32(5);
    control_ = args.words(6);
    owners_ = args.words(7);
    if (!args.good()) return;
    counters_ = shared_cells(info, 8, kLinkCounters);
    pool_ = FramePool::attach(pool, partition);
    if (info.Length() > 9 && !info[9].IsUndefined()) guard_ = guard_from(info[9]);
    if (info.Length() > 10 && !info[10].IsUndefined()) capture_ = capture_from(info[10]);
    if (!link_ || queue_ >= link_->queues.size() || !pool_ || control_.size() < kControlWords ||
        owners_.size() < kShards || counters_ == nullptr || !is_shared(info, 4) ||
        !is_shared(info, 6) || !is_shared(info, 7)) {
      link_.reset();
      args.fail(
          "NativeLinkThread: an open link and its queue, a pool, control words, owners and "
          "counters "
          "are needed");
      return;
    }
    for (const size_t index : {4, 6, 7, 8})
      kept_.push_back(Napi::Persistent(info[index].As<Napi::Object>()));
    // An environment that ends without close() (process.exit, a terminated worker) takes the memory
    // with it.
    napi_add_env_cleanup_hook(info.Env(), &LinkThreadWrap::on_environment_exit, this);
    hooked_ = true;
  }

  ~LinkThreadWrap() override { stop(); }

 private:
  static void on_environment_exit(void* self) { static_cast<LinkThreadWrap*>(self)->stop(); }

  // -1: the thread sleeps on its futex alone.
  Napi::Value wake_fd(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), thread_ ? thread_->wake_fd() : -1);
  }

  // 0, or the errno of the link's or the thread's start.
  Napi::Value start(const Napi::CallbackInfo& info) {
    const auto answer = [&](int error) { return Napi::Number::New(info.Env(), error); };
    if (thread_ || !link_) return answer(EINVAL);
    event_ = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!event_) return answer(errno);
    const NativeThreadOptions options{
        link_->addresses,
        key_,
        *pool_,
        LinkCounters(std::span<uint64_t, kLinkCounters>(counters_, kLinkCounters)),
        Doorbell(&control_[kControlDoorbellWord], event_.get()),
        owners_.first<kShards>(),
        capture_,
        guard_,
        link_->groups};
    thread_ = std::make_unique<NativeThread>(options, link_->queues[queue_]);
    const int error = thread_->start();
    if (error != 0) thread_.reset();
    return answer(error);
  }

  // (index, receive ring, transmit ring, port words, eventfd or nothing): false when the place is taken or the thread
  // has ended.
  Napi::Value attach_worker(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    const uint32_t index = args.uint32(0);
    const std::span<uint32_t> receive = args.words(1);
    const std::span<uint32_t> transmit = args.words(2);
    const std::span<uint32_t> port = args.words(3);
    if (!args.good()) return info.Env().Undefined();
    const auto receive_ring = RingMemory::attach(receive);
    const auto transmit_ring = RingMemory::attach(transmit);
    if (!receive_ring || !transmit_ring || port.size() < kPortWords || !is_shared(info, 1) ||
        !is_shared(info, 2) || !is_shared(info, 3)) {
      return args.fail(
          "attachWorker: two rings and a worker's port words are needed, in shared memory");
    }
    // An engine sleeps on an eventfd of its own.
    const int event = info.Length() > 4 && info[4].IsNumber() ? args.int32(4) : -1;
    const WorkerPort shared{*receive_ring, *transmit_ring,
                            Doorbell(&port[kPortDoorbellWord], event),
                            port.subspan<kPortUdpWord, kPortBitmapWords>(),
                            port.subspan<kPortTcpWord, kPortBitmapWords>()};
    const bool attached = thread_ && thread_->attach_worker(index, shared);
    if (attached) {
      auto& kept = kept_by_worker_[index];
      for (const size_t argument : {1, 2, 3}) {
        kept.push_back(Napi::Persistent(info[argument].As<Napi::Object>()));
      }
    }
    return Napi::Boolean::New(info.Env(), attached);
  }

  Napi::Value detach_worker(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    const uint32_t index = args.uint32(0);
    if (!args.good()) return info.Env().Undefined();
    const bool detached = thread_ && thread_->detach_worker(index);
    if (detached) kept_by_worker_.erase(index);
    return Napi::Boolean::New(info.Env(), detached);
  }

  Napi::Value close(const Napi::CallbackInfo& info) {
    stop();
    return info.Env().Undefined();
  }

  // The thread first, then the references to what it worked on.
  void stop() {
    if (thread_) thread_->stop();
    thread_.reset();
    link_.reset();
    capture_.reset();
    guard_.reset();
    kept_by_worker_.clear();
    kept_.clear();
    if (hooked_) napi_remove_env_cleanup_hook(Env(), &LinkThreadWrap::on_environment_exit, this);
    hooked_ = false;
  }

  std::shared_ptr<OpenedLink> link_;
  uint32_t queue_ = 0;
  SteerKey key_;
  std::optional<FramePool> pool_;
  std::shared_ptr<PacketCapture> capture_;
  std::shared_ptr<Guard> guard_;
  std::span<uint32_t> control_;
  std::span<uint32_t> owners_;
  UniqueFd event_;
  uint64_t* counters_ = nullptr;
  std::unique_ptr<NativeThread> thread_;
  std::vector<Napi::ObjectReference> kept_;
  std::map<uint32_t, std::vector<Napi::ObjectReference>> kept_by_worker_;
  bool hooked_ = false;
};

Napi::Value counter_names(const Napi::CallbackInfo& info) {
  Napi::Array names = Napi::Array::New(info.Env(), kLinkCounters);
  for (uint32_t i = 0; i < kLinkCounters; ++i)
    names[i] = Napi::String::New(info.Env(), kLinkCounterNames[i]);
  return names;
}

}  // namespace

void register_native_thread(Napi::Env env, Napi::Object exports) {
  exports.Set("NativeLinkThread", LinkThreadWrap::define(env));
  exports.Set("linkCounterNames", Napi::Function::New<&counter_names>(env, "linkCounterNames"));
}

}  // namespace apo
