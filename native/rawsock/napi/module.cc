// The addon's entry: it registers what the parts export and holds no state of its own, so every
// worker thread may load it. The typed mirror of `exports` is src/layer3-ip/native.ts.
#include "napi/registration.h"

namespace {

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  apo::register_bench(env, exports);
  apo::register_capture(env, exports);
  apo::register_fanout(env, exports);
  apo::register_guard(env, exports);
  apo::register_impairment(env, exports);
  apo::register_futex(env, exports);
  apo::register_huge_pages(env, exports);
  apo::register_ip(env, exports);
  apo::register_native_link(env, exports);
  apo::register_native_thread(env, exports);
  apo::register_probe(env, exports);
  apo::register_socket_write(env, exports);
  apo::register_wire(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(rawsock, initialise)
