// Checked arguments of a native call. A wrong one makes `good()` false and throws a TypeError that
// names its place; the getters then return harmless values, so a caller may read all of them first
// and ask once.
#pragma once

#include <napi.h>

#include <cstdint>
#include <span>
#include <string>

namespace apo {

class Arguments {
 public:
  explicit Arguments(const Napi::CallbackInfo& info) : info_(info) {}

  [[nodiscard]] bool good() const { return good_; }

  [[nodiscard]] double number(size_t index) const {
    if (index < info_.Length() && info_[index].IsNumber())
      return info_[index].As<Napi::Number>().DoubleValue();
    wrong(index, "a number");
    return 0;
  }
  [[nodiscard]] uint32_t uint32(size_t index) const {
    return integer<uint32_t>(index, 0, UINT32_MAX);
  }
  [[nodiscard]] uint16_t uint16(size_t index) const {
    return integer<uint16_t>(index, 0, UINT16_MAX);
  }
  [[nodiscard]] int32_t int32(size_t index) const {
    return integer<int32_t>(index, INT32_MIN, INT32_MAX);
  }
  [[nodiscard]] bool boolean(size_t index) const {
    if (index < info_.Length() && info_[index].IsBoolean())
      return info_[index].As<Napi::Boolean>().Value();
    wrong(index, "a boolean");
    return false;
  }
  [[nodiscard]] std::string string(size_t index) const {
    if (index < info_.Length() && info_[index].IsString())
      return info_[index].As<Napi::String>().Utf8Value();
    wrong(index, "a string");
    return {};
  }
  [[nodiscard]] std::span<uint8_t> bytes(size_t index) const {
    return typed<uint8_t>(index, napi_uint8_array);
  }
  [[nodiscard]] std::span<uint32_t> words(size_t index) const {
    return typed<uint32_t>(index, napi_uint32_array);
  }
  [[nodiscard]] std::span<double> doubles(size_t index) const {
    return typed<double>(index, napi_float64_array);
  }

  // Throws an Error; for `return args.fail(…)`.
  Napi::Value fail(const std::string& text) const {
    good_ = false;
    if (!info_.Env().IsExceptionPending())
      Napi::Error::New(info_.Env(), text).ThrowAsJavaScriptException();
    return info_.Env().Undefined();
  }

 private:
  template <typename T>
  T integer(size_t index, double low, double high) const {
    const double value = number(index);
    if (!(value >= low && value <= high)) {
      wrong(index, "an integer in range");
      return 0;
    }
    return static_cast<T>(value);
  }

  // By way of napi_get_typedarray_info: unlike the C++ wrapper it also takes arrays over a
  // SharedArrayBuffer.
  template <typename T>
  std::span<T> typed(size_t index, napi_typedarray_type wanted) const {
    if (index < info_.Length() && info_[index].IsTypedArray()) {
      napi_typedarray_type type = napi_int8_array;
      size_t length = 0;
      void* data = nullptr;
      if (napi_get_typedarray_info(info_.Env(), info_[index], &type, &length, &data, nullptr,
                                   nullptr) == napi_ok &&
          type == wanted) {
        return {static_cast<T*>(data), length};
      }
    }
    wrong(index, "a typed array of the right kind");
    return {};
  }

  void wrong(size_t index, const char* wanted) const {
    if (!good_) return;
    good_ = false;
    if (info_.Env().IsExceptionPending()) return;
    const std::string text = "argument " + std::to_string(index + 1) + " must be " + wanted;
    Napi::TypeError::New(info_.Env(), text).ThrowAsJavaScriptException();
  }

  const Napi::CallbackInfo& info_;
  mutable bool good_ = true;
};

}  // namespace apo
