// The native thread of a link and the wire of the `mem` link as JavaScript classes, and the futex
// that workers sleep on. The typed mirror is in src/layer3-ip/native.ts; src/layer3-ip/mem-link.ts
// is its user.
//
// Every shared array that the thread works on is held by a reference until the thread has ended:
// optimised JavaScript lets go of memory earlier than its source suggests.
#include <cerrno>
#include <cstring>
#include <map>

#include "links/mem_wire.h"
#include "napi/napi_arguments.h"
#include "napi/registration.h"
#include "thread/native_thread.h"

namespace apo {
namespace {

// The control words that JavaScript shares with the thread; mirrored in src/layer3-ip/mem-link.ts.
constexpr size_t kControlDoorbellWord = 0;
constexpr size_t kControlShardsWord = 16;
constexpr size_t kControlWords = kControlShardsWord + kShards;
// The words that one worker shares with it; mirrored in src/layer3-ip/worker-port.ts.
constexpr size_t kPortDoorbellWord = 0;
constexpr size_t kPortBitmapWord = 32;
constexpr size_t kPortWords = kPortBitmapWord + kPortBitmapWords;
// An address in the constructor's byte array: version, prefix bits, 16 bytes.
constexpr size_t kAddressRecordBytes = 18;

// True when the array's memory cannot be detached under a thread that works on it.
bool is_shared(const Napi::CallbackInfo& info, size_t index) {
  napi_value buffer = nullptr;
  bool plain = true;
  return index < info.Length() && info[index].IsTypedArray() &&
         napi_get_typedarray_info(info.Env(), info[index], nullptr, nullptr, nullptr, &buffer,
                                  nullptr) == napi_ok &&
         napi_is_arraybuffer(info.Env(), buffer, &plain) == napi_ok && !plain;
}

// The cells of a BigUint64Array of exactly the counters' number; null otherwise.
uint64_t* counter_cells(const Napi::CallbackInfo& info, size_t index) {
  napi_typedarray_type type = napi_int8_array;
  size_t length = 0;
  void* data = nullptr;
  if (!is_shared(info, index) || napi_get_typedarray_info(info.Env(), info[index], &type, &length,
                                                          &data, nullptr, nullptr) != napi_ok) {
    return nullptr;
  }
  return type == napi_biguint64_array && length == kLinkCounters ? static_cast<uint64_t*>(data)
                                                                 : nullptr;
}

bool read_address(std::span<const uint8_t> record, IpPrefix& prefix) {
  if (record[0] != 4 && record[0] != 6) return false;
  prefix.address = IpAddress::from_bytes(record[0], record.data() + 2);
  prefix.prefix_bits = record[1];
  return record[1] <= 8 * prefix.address.size();
}

bool read_addresses(std::span<const uint8_t> records, AddressSet& addresses) {
  if (records.empty() || records.size() % kAddressRecordBytes != 0) return false;
  for (size_t at = 0; at < records.size(); at += kAddressRecordBytes) {
    IpPrefix prefix;
    if (!read_address(records.subspan(at, kAddressRecordBytes), prefix) || !addresses.add(prefix))
      return false;
  }
  return true;
}

class WireWrap : public Napi::ObjectWrap<WireWrap> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "NativeWire",
        {InstanceAccessor<&WireWrap::id>("id"), InstanceAccessor<&WireWrap::mtu>("mtu"),
         InstanceAccessor<&WireWrap::endpoints>("endpoints"),
         InstanceMethod<&WireWrap::inject>("inject")});
  }

  // (mtu, inboxBytes) makes a wire; (id) finds one of this process.
  explicit WireWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<WireWrap>(info) {
    const Arguments args(info);
    const uint32_t first = args.uint32(0);
    if (!args.good()) return;
    if (info.Length() == 1) {
      wire_ = MemWire::find(first);
      if (!wire_) args.fail("NativeWire: this process has no such wire");
      return;
    }
    MemWireOptions options;
    options.mtu = first;
    options.inbox_bytes = args.uint32(1);
    if (!args.good()) return;
    if (options.mtu < MemWireOptions::kMtuMin || options.mtu > MemWireOptions::kMtuMax ||
        options.inbox_bytes < MemWireOptions::kInboxBytesMin ||
        options.inbox_bytes > MemWireOptions::kInboxBytesMax) {
      args.fail("NativeWire: the MTU or the inbox's size is out of range");
      return;
    }
    wire_ = MemWire::create(options);
  }

 private:
  Napi::Value id(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), wire_->id());
  }
  Napi::Value mtu(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(wire_->options().mtu));
  }
  Napi::Value endpoints(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(wire_->endpoints()));
  }

  // (address record, bytes): the name of the counter that says what became of it.
  Napi::Value inject(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    const std::span<uint8_t> record = args.bytes(0);
    const std::span<uint8_t> bytes = args.bytes(1);
    IpPrefix to;
    if (!args.good()) return info.Env().Undefined();
    if (record.size() != kAddressRecordBytes || !read_address(record, to) || bytes.empty()) {
      return args.fail("inject: an address record and at least one byte are needed");
    }
    const LinkCounter result = wire_->inject(to.address, bytes);
    return Napi::String::New(info.Env(), kLinkCounterNames[static_cast<size_t>(result)]);
  }

  std::shared_ptr<MemWire> wire_;
};

class LinkThreadWrap : public Napi::ObjectWrap<LinkThreadWrap> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "NativeLinkThread",
                       {InstanceMethod<&LinkThreadWrap::start>("start"),
                        InstanceMethod<&LinkThreadWrap::attach_worker>("attachWorker"),
                        InstanceMethod<&LinkThreadWrap::detach_worker>("detachWorker"),
                        InstanceMethod<&LinkThreadWrap::close>("close")});
  }

  // (wireId, addresses, keyLow, keyHigh, pool, partition, control, counters)
  explicit LinkThreadWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<LinkThreadWrap>(info) {
    const Arguments args(info);
    wire_ = MemWire::find(args.uint32(0));
    const bool addresses_are_good = read_addresses(args.bytes(1), addresses_);
    key_ = {args.uint32(2), args.uint32(3)};
    const std::span<uint32_t> pool = args.words(4);
    const uint32_t partition = args.uint32(5);
    control_ = args.words(6);
    if (!args.good()) return;
    counters_ = counter_cells(info, 7);
    pool_ = FramePool::attach(pool, partition);
    if (!wire_ || !addresses_are_good || !pool_ || control_.size() < kControlWords ||
        counters_ == nullptr || !is_shared(info, 4) || !is_shared(info, 6)) {
      args.fail(
          "NativeLinkThread: a wire, addresses, a pool, control words and counters are needed");
      return;
    }
    for (const size_t index : {4, 6, 7})
      kept_.push_back(Napi::Persistent(info[index].As<Napi::Object>()));
    // An environment that ends without close() (process.exit, a terminated worker) takes the memory
    // with it.
    napi_add_env_cleanup_hook(info.Env(), &LinkThreadWrap::on_environment_exit, this);
    hooked_ = true;
  }

  ~LinkThreadWrap() override { stop(); }

 private:
  static void on_environment_exit(void* self) { static_cast<LinkThreadWrap*>(self)->stop(); }

  // 0, or an errno: EADDRINUSE (the wire has one of the addresses already), ENFILE (it is full), or
  // pthread's.
  Napi::Value start(const Napi::CallbackInfo& info) {
    const auto answer = [&](int error) { return Napi::Number::New(info.Env(), error); };
    if (thread_ || !wire_) return answer(EINVAL);
    const Doorbell doorbell(&control_[kControlDoorbellWord]);
    IpAddress taken;
    taken.version = 0;
    auto endpoint = wire_->plug_in(addresses_, doorbell, &taken);
    if (!endpoint) return answer(taken.version != 0 ? EADDRINUSE : ENFILE);
    const NativeThreadOptions options{
        addresses_, key_,
        *pool_,     LinkCounters(std::span<uint64_t, kLinkCounters>(counters_, kLinkCounters)),
        doorbell,   control_.subspan<kControlShardsWord, kShards>()};
    thread_ = std::make_unique<NativeThread>(options, endpoint);
    const int error = thread_->start();
    if (error != 0) {
      thread_.reset();
      endpoint->close();
    }
    return answer(error);
  }

  // (index, receive ring, transmit ring, port words): false when the place is taken or the thread
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
    const WorkerPort shared{*receive_ring, *transmit_ring, Doorbell(&port[kPortDoorbellWord]),
                            port.subspan<kPortBitmapWord, kPortBitmapWords>()};
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
    wire_.reset();
    kept_by_worker_.clear();
    kept_.clear();
    if (hooked_) napi_remove_env_cleanup_hook(Env(), &LinkThreadWrap::on_environment_exit, this);
    hooked_ = false;
  }

  std::shared_ptr<MemWire> wire_;
  AddressSet addresses_;
  SteerKey key_;
  std::optional<FramePool> pool_;
  std::span<uint32_t> control_;
  uint64_t* counters_ = nullptr;
  std::unique_ptr<NativeThread> thread_;
  std::vector<Napi::ObjectReference> kept_;
  std::map<uint32_t, std::vector<Napi::ObjectReference>> kept_by_worker_;
  bool hooked_ = false;
};

// (words, index, expected, timeoutMicroseconds): 0 woken, 1 the word had another value, 2 timed
// out.
Napi::Value futex_wait_call(const Napi::CallbackInfo& info) {
  const Arguments args(info);
  const std::span<uint32_t> words = args.words(0);
  const uint32_t index = args.uint32(1);
  const uint32_t expected = args.uint32(2);
  const double timeout_us = args.number(3);
  if (!args.good()) return info.Env().Undefined();
  // A worker must come back now and then: it may have been told to end.
  constexpr double kTimeoutMaxUs = 10e6;
  if (index >= words.size() || !(timeout_us >= 0 && timeout_us <= kTimeoutMaxUs)) {
    return args.fail("futexWait: the index is outside the array, or the timeout outside 0 to 10 s");
  }
  const FutexResult result = futex_wait(&words[index], expected, static_cast<int64_t>(timeout_us));
  return Napi::Number::New(info.Env(), static_cast<int>(result));
}

// (words, index, count): how many were woken.
Napi::Value futex_wake_call(const Napi::CallbackInfo& info) {
  const Arguments args(info);
  const std::span<uint32_t> words = args.words(0);
  const uint32_t index = args.uint32(1);
  const int32_t count = args.int32(2);
  if (!args.good()) return info.Env().Undefined();
  if (index >= words.size() || count < 0)
    return args.fail("futexWake: the index is outside the array");
  return Napi::Number::New(info.Env(), futex_wake(&words[index], count));
}

Napi::Value counter_names(const Napi::CallbackInfo& info) {
  Napi::Array names = Napi::Array::New(info.Env(), kLinkCounters);
  for (uint32_t i = 0; i < kLinkCounters; ++i)
    names[i] = Napi::String::New(info.Env(), kLinkCounterNames[i]);
  return names;
}

}  // namespace

void register_native_thread(Napi::Env env, Napi::Object exports) {
  exports.Set("NativeWire", WireWrap::define(env));
  exports.Set("NativeLinkThread", LinkThreadWrap::define(env));
  exports.Set("futexWait", Napi::Function::New<&futex_wait_call>(env, "futexWait"));
  exports.Set("futexWake", Napi::Function::New<&futex_wake_call>(env, "futexWake"));
  exports.Set("linkCounterNames", Napi::Function::New<&counter_names>(env, "linkCounterNames"));
}

}  // namespace apo
