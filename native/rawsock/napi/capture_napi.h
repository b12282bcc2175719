// How other parts of the addon take a capture that JavaScript hands them.
#pragma once

#include <napi.h>

#include <memory>

#include "capture/packet_capture.h"

namespace apo {

// What a NativeCapture holds; null for anything else, and for one that has been closed.
[[nodiscard]] std::shared_ptr<PacketCapture> capture_from(const Napi::Value& value);

}  // namespace apo
