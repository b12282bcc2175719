// The impairment as a JavaScript class, for the test that holds it against its twin in
// src/layer3-ip/impairment.ts.
#include "links/impairment.h"

#include "napi/napi_arguments.h"
#include "napi/registration.h"

namespace apo {
namespace {

// Numbers that one decision takes in the answer: fate, bit (-1: none), at, copy at (-1: never),
// reordered.
constexpr size_t kAnswerNumbers = 5;
constexpr double kTimeMostUs = 9e15;

class ImpairmentWrap : public Napi::ObjectWrap<ImpairmentWrap> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "NativeImpairment",
                       {InstanceMethod<&ImpairmentWrap::decide>("decide"),
                        InstanceMethod<&ImpairmentWrap::change>("change")});
  }

  // (settings, from, to)
  explicit ImpairmentWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ImpairmentWrap>(info) {
    const Arguments args(info);
    const auto settings = ImpairmentSettings::from(args.doubles(0));
    const uint32_t from = args.uint32(1);
    const uint32_t to = args.uint32(2);
    if (!args.good()) return;
    if (!settings) {
      args.fail("NativeImpairment: the settings are out of range");
      return;
    }
    impairment_.emplace(*settings, from, to);
  }

 private:
  // (times, lengths, answers): five numbers a packet.
  Napi::Value decide(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    const std::span<double> times = args.doubles(0);
    const std::span<uint32_t> lengths = args.words(1);
    const std::span<double> answers = args.doubles(2);
    if (!args.good()) return info.Env().Undefined();
    if (!impairment_ || lengths.size() != times.size() ||
        answers.size() != times.size() * kAnswerNumbers) {
      return args.fail("decide: as many times as lengths, and five numbers for each, are needed");
    }
    const auto or_none = [](auto value, auto none) {
      return value == none ? -1.0 : static_cast<double>(value);
    };
    for (size_t i = 0; i < times.size(); ++i) {
      if (!(times[i] >= 0 && times[i] <= kTimeMostUs) || lengths[i] > ImpairmentSettings::kMtuMax) {
        return args.fail("decide: a time or a length is out of range");
      }
      const ImpairmentDecision decision =
          impairment_->decide(static_cast<uint64_t>(times[i]), lengths[i]);
      const std::span<double> answer = answers.subspan(i * kAnswerNumbers, kAnswerNumbers);
      answer[0] = static_cast<double>(decision.fate);
      answer[1] = or_none(decision.corrupt_bit, ImpairmentDecision::kNoBit);
      answer[2] = or_none(decision.at_us, ImpairmentDecision::kNever);
      answer[3] = or_none(decision.copy_at_us, ImpairmentDecision::kNever);
      answer[4] = decision.reordered ? 1 : 0;
    }
    return info.Env().Undefined();
  }

  Napi::Value change(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    const auto settings = ImpairmentSettings::from(args.doubles(0));
    if (!args.good()) return info.Env().Undefined();
    if (!settings || !impairment_) return args.fail("change: the settings are out of range");
    impairment_->change(*settings);
    return info.Env().Undefined();
  }

  std::optional<Impairment> impairment_;
};

}  // namespace

void register_impairment(Napi::Env env, Napi::Object exports) {
  exports.Set("NativeImpairment", ImpairmentWrap::define(env));
}

}  // namespace apo
