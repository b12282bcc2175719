// For `npm run bench -- l3` alone: a native thread that fills, empties or answers shared memory as fast
// as it can, with the ring, pool and doorbell that a native link thread uses. The runtime never makes
// one. The typed mirror is in src/layer3-ip/native.ts.
#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <atomic>
#include <optional>
#include <vector>

#include "memory/doorbell.h"
#include "memory/frame_pool.h"
#include "memory/ring.h"
#include "napi/napi_arguments.h"
#include "napi/registration.h"
#include "wire/checksum.h"
#include "wire/packet_descriptor.h"

namespace apo {
namespace {

// The bells' words: the native thread sleeps on the first, the worker on the second.
constexpr size_t kOwnBellWord = 0;
constexpr size_t kWorkerBellWord = 16;
constexpr size_t kBellWords = 32;
// Frames that the descriptors of `produce` name in turn.
constexpr size_t kFrames = 256;

enum class Job : uint32_t { kProduce = 0, kConsume = 1, kAnswer = 2 };

class BenchThread {
 public:
  BenchThread(RingMemory ring, FramePool pool, uint32_t* bells)
      : ring_(ring),
        pool_(pool),
        own_bell_(&bells[kOwnBellWord]),
        worker_bell_(&bells[kWorkerBellWord]) {}
  ~BenchThread() { (void)stop(); }

  [[nodiscard]] int start(Job job, uint64_t count, uint32_t batch) {
    if (running_) return EBUSY;
    job_ = job;
    count_ = count;
    batch_ = batch;
    stopping_.store(false);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&thread_, nullptr, &BenchThread::entry, this);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    running_ = error == 0;
    return error;
  }

  // Waits until the job is done; how many it did.
  uint64_t join() {
    if (running_) pthread_join(thread_, nullptr);
    running_ = false;
    return done_;
  }
  uint64_t stop() {
    stopping_.store(true);
    if (running_) own_bell_.ring();
    return join();
  }

 private:
  static void* entry(void* self) {
    auto* bench = static_cast<BenchThread*>(self);
    bench->done_ = bench->run();
    return nullptr;
  }

  uint64_t run() {
    pthread_setname_np(pthread_self(), "apo-bench");
    if (job_ == Job::kProduce) return produce();
    return job_ == Job::kConsume ? consume() : answer();
  }

  [[nodiscard]] bool stopping() const { return stopping_.load(std::memory_order_relaxed); }

  // Descriptors of real frames, encoded one by one as the native link thread does, published in batches.
  uint64_t produce() {
    std::vector<uint32_t> frames;
    for (size_t i = 0; i < kFrames; ++i) {
      if (const uint32_t frame = pool_.allocate(false)) frames.push_back(frame);
    }
    RingProducer out(ring_);
    PacketDescriptor packet;
    packet.packet_offset = 64;
    packet.upper_offset = 84;
    packet.length = 64;
    packet.protocol = 17;
    uint64_t done = 0;
    size_t next = 0;
    while (!frames.empty() && done < count_ && !stopping()) {
      packet.frame = frames[next];
      packet.received_us = static_cast<uint32_t>(done);
      if (out.push(packet.encode())) {
        ++done;
        next = next + 1 == frames.size() ? 0 : next + 1;
      } else {
        sched_yield();  // the consumer is behind: it may need this very processor
      }
      if (out.unpublished() >= batch_ || out.is_full() || done == count_) {
        if (out.publish()) worker_bell_.ring();
      }
    }
    for (const uint32_t frame : frames) (void)pool_.release(frame);
    return done;
  }

  uint64_t consume() {
    RingConsumer in(ring_);
    uint64_t done = 0;
    uint64_t sum = 0;
    while (done < count_ && !stopping()) {
      RingSlot slot;
      uint32_t taken = 0;
      while (taken < batch_ && in.take(slot)) {
        sum += PacketDescriptor::decode(slot).length;
        ++taken;
      }
      in.release();
      done += taken;
      if (taken > 0) continue;
      const uint32_t seen = own_bell_.read();
      if (in.sleep() && !stopping()) (void)own_bell_.wait(seen, -1);
      in.wake();
    }
    checksum_.store(sum);  // or the compiler would see that nobody looks at the slots
    return done;
  }

  // Each ring of the own bell is answered by one of the worker's.
  uint64_t answer() {
    uint64_t done = 0;
    uint32_t seen = first_bell_;
    while (done < count_ && !stopping()) {
      if (own_bell_.read() == seen) {
        (void)own_bell_.wait(seen, -1);
        continue;
      }
      ++seen;
      ++done;
      worker_bell_.ring();
    }
    return done;
  }

  RingMemory ring_;
  FramePool pool_;
  Doorbell own_bell_;
  Doorbell worker_bell_;
  const uint32_t first_bell_ = own_bell_.read();
  Job job_ = Job::kProduce;
  uint64_t count_ = 0;
  uint32_t batch_ = 0;
  uint64_t done_ = 0;
  std::atomic<uint64_t> checksum_{0};
  std::atomic<bool> stopping_{false};
  pthread_t thread_{};
  bool running_ = false;
};

class BenchThreadWrap : public Napi::ObjectWrap<BenchThreadWrap> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "NativeBenchThread",
                       {InstanceMethod<&BenchThreadWrap::start>("start"),
                        InstanceMethod<&BenchThreadWrap::join>("join"),
                        InstanceMethod<&BenchThreadWrap::close>("close")});
  }

  // (ring, bells, pool, partition): all over memory that the caller keeps until `close`.
  explicit BenchThreadWrap(const Napi::CallbackInfo& info)
      : Napi::ObjectWrap<BenchThreadWrap>(info) {
    const Arguments args(info);
    const auto ring = RingMemory::attach(args.words(0));
    const std::span<uint32_t> bells = args.words(1);
    const auto pool = FramePool::attach(args.words(2), args.uint32(3));
    if (!args.good()) return;
    if (!ring || !pool || bells.size() < kBellWords) {
      args.fail("NativeBenchThread: a ring, 32 words for bells and a pool are needed");
      return;
    }
    for (const size_t index : {0, 1, 2})
      kept_.push_back(Napi::Persistent(info[index].As<Napi::Object>()));
    thread_.emplace(*ring, *pool, bells.data());
    napi_add_env_cleanup_hook(info.Env(), &BenchThreadWrap::on_environment_exit, this);
  }

  ~BenchThreadWrap() override { stop(); }

 private:
  static void on_environment_exit(void* self) { static_cast<BenchThreadWrap*>(self)->stop(); }

  // (job 0 produce, 1 consume, 2 answer; count, batch) -> 0 or an errno
  Napi::Value start(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    const uint32_t job = args.uint32(0);
    const double count = args.number(1);
    const uint32_t batch = args.uint32(2);
    if (!args.good()) return info.Env().Undefined();
    if (!thread_ || job > static_cast<uint32_t>(Job::kAnswer) || !(count >= 0 && count < 1e15) ||
        batch == 0) {
      return args.fail("start: no such job, count or batch");
    }
    const int error = thread_->start(static_cast<Job>(job), static_cast<uint64_t>(count), batch);
    return Napi::Number::New(info.Env(), error);
  }

  // Waits for the job; how many it did.
  Napi::Value join(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), thread_ ? static_cast<double>(thread_->join()) : 0);
  }

  void close(const Napi::CallbackInfo&) { stop(); }

  void stop() {
    if (!thread_) return;
    thread_.reset();
    kept_.clear();
    napi_remove_env_cleanup_hook(Env(), &BenchThreadWrap::on_environment_exit, this);
  }

  std::optional<BenchThread> thread_;
  std::vector<Napi::ObjectReference> kept_;
};

// (bytes, times) -> the checksum of `times` passes over the bytes, one after the other.
Napi::Value checksum_passes(const Napi::CallbackInfo& info) {
  const Arguments args(info);
  const std::span<uint8_t> bytes = args.bytes(0);
  const uint32_t times = args.uint32(1);
  if (!args.good()) return info.Env().Undefined();
  wire::Sum sum = 0;
  for (uint32_t i = 0; i < times; ++i) {
    sum = wire::checksum_finish(wire::checksum_add(sum, bytes.data(), bytes.size()));
  }
  return Napi::Number::New(info.Env(), static_cast<double>(sum));
}

}  // namespace

void register_bench(Napi::Env env, Napi::Object exports) {
  exports.Set("benchChecksum", Napi::Function::New<&checksum_passes>(env, "benchChecksum"));
  exports.Set("NativeBenchThread", BenchThreadWrap::define(env));
}

}  // namespace apo
