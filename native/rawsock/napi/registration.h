// What each part of the addon puts into `exports`; called by module.cc.
#pragma once

#include <napi.h>

namespace apo {

void register_bench(Napi::Env env, Napi::Object exports);
void register_capture(Napi::Env env, Napi::Object exports);
void register_fanout(Napi::Env env, Napi::Object exports);
void register_guard(Napi::Env env, Napi::Object exports);
void register_impairment(Napi::Env env, Napi::Object exports);
void register_futex(Napi::Env env, Napi::Object exports);
void register_huge_pages(Napi::Env env, Napi::Object exports);
void register_ip(Napi::Env env, Napi::Object exports);
void register_native_link(Napi::Env env, Napi::Object exports);
void register_native_thread(Napi::Env env, Napi::Object exports);
void register_probe(Napi::Env env, Napi::Object exports);
void register_socket_write(Napi::Env env, Napi::Object exports);
void register_wire(Napi::Env env, Napi::Object exports);

}  // namespace apo
