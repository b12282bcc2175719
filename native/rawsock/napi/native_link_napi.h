// What the other classes of the addon may ask of a NativeLink that JavaScript hands them.
#pragma once

#include <napi.h>

#include <memory>

#include "links/link_kinds.h"

namespace apo {

// The open link of a NativeLink object; null when the value is something else, or closed.
[[nodiscard]] std::shared_ptr<OpenedLink> link_from(const Napi::Value& value);

}  // namespace apo
