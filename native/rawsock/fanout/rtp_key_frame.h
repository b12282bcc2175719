// Whether an RTP payload begins something that a decoder can start on.
//
// It looks at payload headers only and changes nothing; a codec it does not know has no key frames.
#pragma once

#include <cstdint>
#include <span>

namespace apo {

enum class KeyFrames : uint8_t { kNone, kAny, kH264, kH265, kVp8, kVp9, kAv1 };

// `payload` is what follows the RTP header. True on the packet that a new reader should get first.
bool starts_key_frame(KeyFrames codec, std::span<const uint8_t> payload);

}  // namespace apo
