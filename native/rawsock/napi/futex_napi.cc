// The futex that workers sleep on, for JavaScript: Atomics.wait costs ten times as much, and a native
// thread cannot wake it.
#include "memory/doorbell.h"
#include "napi/napi_arguments.h"
#include "napi/registration.h"

namespace apo {
namespace {

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
  const FutexResult result =
      futex_wait_patiently(&words[index], expected, static_cast<int64_t>(timeout_us));
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

}  // namespace

void register_futex(Napi::Env env, Napi::Object exports) {
  exports.Set("futexWait", Napi::Function::New<&futex_wait_call>(env, "futexWait"));
  exports.Set("futexWake", Napi::Function::New<&futex_wake_call>(env, "futexWake"));
}

}  // namespace apo
