// Typed arrays over a SharedArrayBuffer: the only memory that a native thread may work on, since it
// cannot be detached or moved under it.
#pragma once

#include <napi.h>

#include <span>

namespace apo {

[[nodiscard]] inline bool is_shared(const Napi::CallbackInfo& info, size_t index) {
  napi_value buffer = nullptr;
  bool plain = true;
  return index < info.Length() && info[index].IsTypedArray() &&
         napi_get_typedarray_info(info.Env(), info[index], nullptr, nullptr, nullptr, &buffer,
                                  nullptr) == napi_ok &&
         napi_is_arraybuffer(info.Env(), buffer, &plain) == napi_ok && !plain;
}

// The cells of a shared BigUint64Array of exactly that length; null otherwise.
[[nodiscard]] inline uint64_t* shared_cells(const Napi::CallbackInfo& info, size_t index,
                                            size_t wanted) {
  napi_typedarray_type type = napi_int8_array;
  size_t length = 0;
  void* data = nullptr;
  if (!is_shared(info, index) || napi_get_typedarray_info(info.Env(), info[index], &type, &length,
                                                          &data, nullptr, nullptr) != napi_ok) {
    return nullptr;
  }
  return type == napi_biguint64_array && length == wanted ? static_cast<uint64_t*>(data) : nullptr;
}

}  // namespace apo
