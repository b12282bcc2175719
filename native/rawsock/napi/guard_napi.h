// How other parts of the addon take a guard that JavaScript hands them.
#pragma once

#include <napi.h>

#include <memory>

#include "guard/guard.h"

namespace apo {

// What a NativeGuard holds; null for anything else.
[[nodiscard]] std::shared_ptr<Guard> guard_from(const Napi::Value& value);

}  // namespace apo
