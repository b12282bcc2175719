// The pure parts of the IP layer as `exports.ip`, for the tests that hold them against slow twins
// written from the RFCs (test/layer3-ip/slow/). Nothing else uses them from JavaScript.
#include <array>
#include <cmath>
#include <memory>
#include <vector>

#include "ip/fragmentation.h"
#include "ip/reassembly.h"
#include "ip/segmentation.h"
#include "napi/napi_arguments.h"
#include "napi/registration.h"
#include "wire/checksum.h"

namespace apo {
namespace {

constexpr double kTimeMostUs = 9e15;

Napi::Value copy_of(Napi::Env env, std::span<const uint8_t> bytes) {
  return Napi::Buffer<uint8_t>::Copy(env, bytes.data(), bytes.size());
}

// (bytes, cut) -> the checksum field's value, added in two parts; `cut` is even.
Napi::Value checksum(const Napi::CallbackInfo& info) {
  const Arguments args(info);
  const std::span<const uint8_t> bytes = args.bytes(0);
  const size_t cut = args.uint32(1);
  if (!args.good()) return info.Env().Undefined();
  if (cut > bytes.size() || cut % 2 != 0) return args.fail("checksum: no such place to cut at");
  wire::Sum sum = wire::checksum_add(0, bytes.data(), cut);
  sum = wire::checksum_add(sum, bytes.data() + cut, bytes.size() - cut);
  return Napi::Number::New(info.Env(), wire::checksum_finish(sum));
}

// (field, from, to) -> the field's new value
Napi::Value update_checksum(const Napi::CallbackInfo& info) {
  const Arguments args(info);
  const uint16_t updated = wire::checksum_update16(args.uint16(0), args.uint16(1), args.uint16(2));
  if (!args.good()) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), updated);
}

// (packet) -> was it one whose checksum could be completed
Napi::Value complete_partial_checksum(const Napi::CallbackInfo& info) {
  const Arguments args(info);
  const std::span<uint8_t> packet = args.bytes(0);
  if (!args.good()) return info.Env().Undefined();
  return Napi::Boolean::New(info.Env(), complete_checksum(packet));
}

// All packets that a Fragmenter or Segmenter gives; undefined: it refused.
template <typename Splitter>
Napi::Value all_of(Napi::Env env, std::optional<Splitter> splitter) {
  if (!splitter) return env.Undefined();
  std::vector<uint8_t> out(66'000);
  Napi::Array packets = Napi::Array::New(env);
  for (uint32_t i = 0; const size_t length = splitter->next(out); ++i) {
    packets.Set(i, copy_of(env, {out.data(), length}));
  }
  return packets;
}

// (packet, mtu, identification)
Napi::Value fragment(const Napi::CallbackInfo& info) {
  const Arguments args(info);
  const std::span<const uint8_t> packet = args.bytes(0);
  const uint32_t mtu = args.uint32(1);
  const uint32_t identification = args.uint32(2);
  if (!args.good()) return info.Env().Undefined();
  return all_of(info.Env(), Fragmenter::make(packet, mtu, identification));
}

// (packet, gsoKind, gsoBytes)
Napi::Value segment(const Napi::CallbackInfo& info) {
  const Arguments args(info);
  const std::span<const uint8_t> packet = args.bytes(0);
  const uint32_t kind = args.uint32(1);
  const uint16_t gso_bytes = args.uint16(2);
  if (!args.good()) return info.Env().Undefined();
  if (kind > static_cast<uint32_t>(GsoKind::kTcp6)) return args.fail("segment: no such kind");
  const Offload offload = {ChecksumState::kPartial, static_cast<GsoKind>(kind), gso_bytes};
  return all_of(info.Env(), Segmenter::make(packet, offload));
}

class ReassemblerWrap : public Napi::ObjectWrap<ReassemblerWrap> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Reassembler",
                       {InstanceMethod<&ReassemblerWrap::add>("add"),
                        InstanceMethod<&ReassemblerWrap::expire>("expire"),
                        InstanceMethod<&ReassemblerWrap::waiting>("waiting"),
                        InstanceMethod<&ReassemblerWrap::counters>("counters")});
  }

  // (keyLow, keyHigh, datagrams, datagramsPerSource, fragmentsPerDatagram)
  explicit ReassemblerWrap(const Napi::CallbackInfo& info)
      : Napi::ObjectWrap<ReassemblerWrap>(info) {
    const Arguments args(info);
    const SteerKey key = {args.uint32(0), args.uint32(1)};
    ReassemblyLimits limits;
    limits.datagrams = args.uint16(2);
    limits.datagrams_per_source = args.uint16(3);
    limits.fragments_per_datagram = args.uint16(4);
    if (!args.good()) return;
    reassembler_ = std::make_unique<Reassembler>(key, LinkCounters(cells_), limits);
  }

 private:
  // (packet, nowUs) -> the datagram, or "waiting", "not a fragment", or the counter of a drop
  Napi::Value add(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    const std::span<const uint8_t> packet = args.bytes(0);
    const uint64_t now_us = time(args, 1);
    if (!args.good() || !reassembler_) return info.Env().Undefined();
    const Reassembler::Result result = reassembler_->add(packet, now_us);
    switch (result.outcome) {
      case Reassembler::Outcome::kComplete:
        return copy_of(info.Env(), result.datagram);
      case Reassembler::Outcome::kWaiting:
        return Napi::String::New(info.Env(), "waiting");
      case Reassembler::Outcome::kNotFragment:
        return Napi::String::New(info.Env(), "not a fragment");
      case Reassembler::Outcome::kDropped:
        break;
    }
    return Napi::String::New(info.Env(), kLinkCounterNames[static_cast<size_t>(result.reason)]);
  }

  // (nowUs) -> the first fragment of one whose time is over (maybe empty); undefined: there is none
  Napi::Value expire(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    const uint64_t now_us = time(args, 0);
    std::span<const uint8_t> first;
    if (!args.good() || !reassembler_ || !reassembler_->expire(now_us, first)) {
      return info.Env().Undefined();
    }
    return copy_of(info.Env(), first);
  }

  // [fragments, datagrams, bytes of memory, deadline in microseconds (Infinity: none)]
  Napi::Value waiting(const Napi::CallbackInfo& info) {
    if (!reassembler_) return info.Env().Undefined();
    const uint64_t deadline_us = reassembler_->next_deadline_us();
    const double numbers[] = {static_cast<double>(reassembler_->waiting_fragments()),
                              static_cast<double>(reassembler_->waiting_datagrams()),
                              static_cast<double>(reassembler_->used_bytes()),
                              deadline_us == UINT64_MAX ? static_cast<double>(INFINITY)
                                                        : static_cast<double>(deadline_us)};
    Napi::Array all = Napi::Array::New(info.Env(), std::size(numbers));
    for (uint32_t i = 0; i < std::size(numbers); ++i) all.Set(i, numbers[i]);
    return all;
  }

  // By name, those that are not 0.
  Napi::Value counters(const Napi::CallbackInfo& info) {
    Napi::Object all = Napi::Object::New(info.Env());
    for (size_t i = 0; i < kLinkCounters; ++i) {
      if (cells_[i] > 0) all.Set(kLinkCounterNames[i], static_cast<double>(cells_[i]));
    }
    return all;
  }

  static uint64_t time(const Arguments& args, size_t index) {
    const double value = args.number(index);
    return value >= 0 && value <= kTimeMostUs ? static_cast<uint64_t>(value) : 0;
  }

  std::array<uint64_t, kLinkCounters> cells_{};
  std::unique_ptr<Reassembler> reassembler_;
};

}  // namespace

void register_ip(Napi::Env env, Napi::Object exports) {
  Napi::Object ip = Napi::Object::New(env);
  ip.Set("checksum", Napi::Function::New<checksum>(env, "checksum"));
  ip.Set("updateChecksum", Napi::Function::New<update_checksum>(env, "updateChecksum"));
  ip.Set("completeChecksum",
         Napi::Function::New<complete_partial_checksum>(env, "completeChecksum"));
  ip.Set("fragment", Napi::Function::New<fragment>(env, "fragment"));
  ip.Set("segment", Napi::Function::New<segment>(env, "segment"));
  ip.Set("Reassembler", ReassemblerWrap::define(env));
  exports.Set("ip", ip);
}

}  // namespace apo
