// The guard of a runtime as a JavaScript class; the typed mirror is in src/layer3-ip/native.ts, the
// words for people are in src/layer3-ip/guard.ts. A native link thread takes it through
// `guard_from`.
#include "napi/guard_napi.h"

#include <sys/random.h>
#include <time.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "napi/address_records.h"
#include "napi/napi_arguments.h"
#include "napi/registration.h"

namespace apo {
namespace {

// Says that an object is a NativeGuard: a class cannot be asked that about a value from outside.
constexpr napi_type_tag kGuardTag = {0x51d02b6e94af4c13, 0xa7c3380f1be2d965};

// Bits of the lists, and what `change` tells; mirrored in src/layer3-ip/guard.ts.
static_assert(kListedBlocked == 1 && kListedAllowed == 2);
static_assert(static_cast<int>(PrefixTable::Result::kFull) == 2);
static_assert(static_cast<int>(PrefixTable::Result::kNoMemory) == 3);

// Prefixes handed over at once; JavaScript takes a breath between two calls.
constexpr size_t kPrefixesMax = 65'536;

double clock_us() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

// nullopt: not records, or too many.
std::optional<std::vector<IpPrefix>> read_prefixes(std::span<const uint8_t> records) {
  const size_t count = records.size() / kAddressRecordBytes;
  if (records.size() % kAddressRecordBytes != 0 || count > kPrefixesMax) return std::nullopt;
  std::vector<IpPrefix> prefixes;
  prefixes.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    OwnAddress one;
    if (!read_address(records.subspan(i * kAddressRecordBytes, kAddressRecordBytes), one)) {
      return std::nullopt;
    }
    prefixes.push_back(one.prefix);
  }
  return prefixes;
}

class GuardWrap : public Napi::ObjectWrap<GuardWrap> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "NativeGuard",
                       {InstanceMethod<&GuardWrap::change>("change"),
                        InstanceMethod<&GuardWrap::listing>("listing"),
                        InstanceMethod<&GuardWrap::entries>("entries"),
                        InstanceMethod<&GuardWrap::set_limit>("setLimit"),
                        InstanceMethod<&GuardWrap::offenders>("offenders")});
  }

  explicit GuardWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<GuardWrap>(info) {
    HashKey key;
    if (getrandom(&key, sizeof key, 0) != static_cast<ssize_t>(sizeof key)) {
      Arguments(info).fail("NativeGuard: the system gave no random numbers");
      return;
    }
    guard_ = std::make_shared<Guard>(key);
    info.This().As<Napi::Object>().TypeTag(&kGuardTag);
  }

  [[nodiscard]] const std::shared_ptr<Guard>& guard() const { return guard_; }

 private:
  // (add, list, records) -> [prefixes gone through, those that changed, why it ended (0: at the
  // end)].
  Napi::Value change(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    const bool add = args.boolean(0);
    const uint32_t list = args.uint32(1);
    const std::span<uint8_t> records = args.bytes(2);
    if (!args.good()) return info.Env().Undefined();
    const auto prefixes = read_prefixes(records);
    if ((list != kListedBlocked && list != kListedAllowed) || !prefixes) {
      return args.fail("change: a list and at most 65,536 address records are needed");
    }
    const auto outcome = guard_->change(add ? Guard::Change::kAdd : Guard::Change::kRemove,
                                        static_cast<uint8_t>(list), *prefixes);
    auto out = Napi::Array::New(info.Env(), 3);
    out.Set(0u, static_cast<double>(outcome.taken));
    out.Set(1u, static_cast<double>(outcome.changed));
    out.Set(2u, static_cast<double>(outcome.result));
    return out;
  }

  // (address record) -> the bits of the lists that decide on the address.
  Napi::Value listing(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    const std::span<uint8_t> record = args.bytes(0);
    if (!args.good()) return info.Env().Undefined();
    const auto prefixes = read_prefixes(record);
    if (!prefixes || prefixes->size() != 1)
      return args.fail("listing: an address record is needed");
    const IpAddress& address = prefixes->front().address;
    const uint8_t listing = guard_->lists().find(address.version, address.bytes.data());
    return Napi::Number::New(info.Env(), listing);
  }

  // () -> [blocked, allowed, bytes of the lists]
  Napi::Value entries(const Napi::CallbackInfo& info) {
    const PrefixTable& lists = guard_->lists();
    auto out = Napi::Array::New(info.Env(), 3);
    out.Set(0u, static_cast<double>(lists.entries(kListedBlocked)));
    out.Set(1u, static_cast<double>(lists.entries(kListedAllowed)));
    out.Set(2u, static_cast<double>(lists.memory_bytes()));
    return out;
  }

  // (packetsPerSecond (0: none), burst, prefixBits4, prefixBits6): false when out of range.
  Napi::Value set_limit(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    RateLimit limit;
    limit.packets_per_second = args.uint32(0);
    limit.burst = args.uint32(1);
    const uint32_t bits4 = args.uint32(2);
    const uint32_t bits6 = args.uint32(3);
    if (!args.good()) return info.Env().Undefined();
    if (bits4 > 32 || bits6 > 128) return Napi::Boolean::New(info.Env(), false);
    limit.prefix_bits4 = static_cast<uint8_t>(bits4);
    limit.prefix_bits6 = static_cast<uint8_t>(bits6);
    return Napi::Boolean::New(info.Env(), guard_->set_limit(limit));
  }

  // () -> an array of { version, address, distance, reason, count, firstMs, lastMs, bytes }, times in
  // milliseconds ago.
  Napi::Value offenders(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const std::vector<Offender> found = guard_->offenders();
    const double now_us = clock_us();
    const auto ago_ms = [now_us](uint64_t at_us) {
      return std::max(0.0, now_us - static_cast<double>(at_us)) / 1e3;
    };
    auto out = Napi::Array::New(env, found.size());
    for (uint32_t i = 0; i < found.size(); ++i) {
      const Offender& one = found[i];
      auto object = Napi::Object::New(env);
      object.Set("version", one.address.version);
      object.Set("address", copy_of(env, {one.address.bytes.data(), one.address.size()}));
      object.Set("distance", one.distance);
      object.Set("reason", kLinkCounterNames[static_cast<size_t>(one.last_reason)]);
      object.Set("count", static_cast<double>(one.count));
      object.Set("firstMs", ago_ms(one.first_us));
      object.Set("lastMs", ago_ms(one.last_us));
      object.Set("bytes", copy_of(env, {one.bytes.data(), one.byte_count}));
      out.Set(i, object);
    }
    return out;
  }

  static Napi::Uint8Array copy_of(Napi::Env env, std::span<const uint8_t> bytes) {
    auto copy = Napi::Uint8Array::New(env, bytes.size());
    std::copy(bytes.begin(), bytes.end(), copy.Data());
    return copy;
  }

  std::shared_ptr<Guard> guard_;
};

}  // namespace

std::shared_ptr<Guard> guard_from(const Napi::Value& value) {
  if (!value.IsObject()) return nullptr;
  const auto object = value.As<Napi::Object>();
  if (!object.CheckTypeTag(&kGuardTag)) return nullptr;
  const GuardWrap* wrap = GuardWrap::Unwrap(object);
  return wrap != nullptr ? wrap->guard() : nullptr;
}

void register_guard(Napi::Env env, Napi::Object exports) {
  exports.Set("NativeGuard", GuardWrap::define(env));
}

}  // namespace apo
