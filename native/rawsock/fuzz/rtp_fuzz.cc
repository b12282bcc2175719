// Any bytes as an RTP packet: the header, and each codec's search for a key frame.
#include <cstdint>
#include <cstdlib>

#include "fanout/rtp_key_frame.h"
#include "fanout/rtp_packet.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const uint8_t> bytes(data, size);
  for (uint8_t codec = 0; codec <= static_cast<uint8_t>(apo::KeyFrames::kAv1); codec++) {
    apo::starts_key_frame(static_cast<apo::KeyFrames>(codec), bytes);
    const auto packet = apo::RtpPacket::parse(bytes);
    if (!packet) continue;
    const auto payload = packet->payload();
    if (payload.data() < data + apo::RtpPacket::kHeaderBytes ||
        payload.data() + payload.size() > data + size) {
      std::abort();
    }
    apo::starts_key_frame(static_cast<apo::KeyFrames>(codec), payload);
  }
  return 0;
}
