// One write to a socket of the kernel's, without the stream machinery around it. See src/layer2-transport/host/.
#include <sys/socket.h>

#include <cerrno>

#include "napi/napi_arguments.h"
#include "napi/registration.h"

namespace apo {
namespace {

// (fd, bytes) -> bytes written, or -errno; 0 when the socket's buffer is full
Napi::Value write_now(const Napi::CallbackInfo& info) {
  const Arguments args(info);
  const int fd = args.int32(0);
  const auto bytes = args.bytes(1);
  if (!args.good()) return info.Env().Undefined();
  ssize_t written = 0;
  do {
    written = ::send(fd, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (written < 0 && errno == EINTR);
  const bool full = written < 0 && errno == EAGAIN;
  return Napi::Number::New(info.Env(),
                           full ? 0.0 : static_cast<double>(written < 0 ? -errno : written));
}

}  // namespace

void register_socket_write(Napi::Env env, Napi::Object exports) {
  exports.Set("writeNow", Napi::Function::New<write_now>(env, "writeNow"));
}

}  // namespace apo
