// A capture file as a JavaScript class; the typed mirror is in src/layer3-ip/native.ts, the words for
// people are in src/layer3-ip/capture.ts. A native link thread takes it through `capture_from`.
#include "napi/capture_napi.h"

#include <cerrno>
#include <cstring>

#include "napi/napi_arguments.h"
#include "napi/registration.h"

namespace apo {
namespace {

// Says that an object is a NativeCapture: a class cannot be asked that about a value from outside.
constexpr napi_type_tag kCaptureTag = {0x8f3a4b52c1d94e07, 0x9d26e1f07a583c4b};

class CaptureWrap : public Napi::ObjectWrap<CaptureWrap> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "NativeCapture",
                       {InstanceMethod<&CaptureWrap::status>("status"),
                        InstanceMethod<&CaptureWrap::close>("close")});
  }

  // (path, snapLength). Throws an Error with the property `errno` when the file cannot be made.
  explicit CaptureWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<CaptureWrap>(info) {
    const Arguments args(info);
    const std::string path = args.string(0);
    CaptureOptions options;
    options.snap_bytes = args.uint32(1);
    if (!args.good()) return;
    int error = 0;
    capture_ = PacketCapture::open(path, options, error);
    if (!capture_) {
      const Napi::Error failure =
          Napi::Error::New(info.Env(), std::string("NativeCapture: ") + std::strerror(error));
      failure.Set("errno", Napi::Number::New(info.Env(), error));
      failure.ThrowAsJavaScriptException();
      return;
    }
    info.This().As<Napi::Object>().TypeTag(&kCaptureTag);
    // An environment that ends without close() leaves a whole file, too.
    napi_add_env_cleanup_hook(info.Env(), &CaptureWrap::on_environment_exit, this);
  }

  ~CaptureWrap() override { stop(); }

  [[nodiscard]] const std::shared_ptr<PacketCapture>& capture() const { return capture_; }

 private:
  static void on_environment_exit(void* self) { static_cast<CaptureWrap*>(self)->stop(); }

  // () -> [packets, bytes, missed, errno]
  Napi::Value status(const Napi::CallbackInfo& info) {
    const CaptureStatus status = capture_ ? capture_->status() : last_;
    auto out = Napi::Array::New(info.Env(), 4);
    out.Set(0u, static_cast<double>(status.packets));
    out.Set(1u, static_cast<double>(status.bytes));
    out.Set(2u, static_cast<double>(status.missed));
    out.Set(3u, status.error);
    return out;
  }

  // () -> 0, or the errno that ended the capture before its time.
  Napi::Value close(const Napi::CallbackInfo& info) {
    stop();
    return Napi::Number::New(info.Env(), last_.error);
  }

  // The threads that record keep their own reference: for them the capture is only closed.
  void stop() {
    if (!capture_) return;
    (void)capture_->close();
    last_ = capture_->status();
    capture_.reset();
    napi_remove_env_cleanup_hook(Env(), &CaptureWrap::on_environment_exit, this);
  }

  std::shared_ptr<PacketCapture> capture_;
  CaptureStatus last_;
};

}  // namespace

std::shared_ptr<PacketCapture> capture_from(const Napi::Value& value) {
  if (!value.IsObject()) return nullptr;
  const auto object = value.As<Napi::Object>();
  if (!object.CheckTypeTag(&kCaptureTag)) return nullptr;
  const CaptureWrap* wrap = CaptureWrap::Unwrap(object);
  return wrap != nullptr ? wrap->capture() : nullptr;
}

void register_capture(Napi::Env env, Napi::Object exports) {
  exports.Set("NativeCapture", CaptureWrap::define(env));
}

}  // namespace apo
