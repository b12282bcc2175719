// What this process may do of what the links need: for `apo doctor`. See util/link_probe.h.
#include "napi/registration.h"
#include "util/link_probe.h"

namespace apo {
namespace {

// () -> { tunOpen, tunFeatures, packetSocket, xdpSocket, bpfMap, xdpProgram, tunFlags }
Napi::Value probe(const Napi::CallbackInfo& info) {
  const LinkProbe found = probe_links();
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("tunOpen", found.tun_open);
  result.Set("tunFeatures", found.tun_features);
  result.Set("packetSocket", found.packet_socket);
  result.Set("xdpSocket", found.xdp_socket);
  result.Set("bpfMap", found.bpf_map);
  result.Set("xdpProgram", found.xdp_program);
  result.Set("tunFlags", found.tun_flags);
  return result;
}

}  // namespace

void register_probe(Napi::Env env, Napi::Object exports) {
  exports.Set("probeLinks", Napi::Function::New<probe>(env, "probeLinks"));
}

}  // namespace apo
