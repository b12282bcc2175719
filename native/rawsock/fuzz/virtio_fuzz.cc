// Any 10 or 12 bytes as a virtio_net_hdr before any packet: what is believed of it must be true of
// the packet, and must come out the same when it is written again.
#include <array>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "input_harness.h"
#include "wire/virtio_net_header.h"

namespace {

using namespace apo;
using fuzz::require;

void check_header(std::span<const uint8_t> header, std::span<const uint8_t> packet) {
  const std::optional<Offload> offload = wire::read_virtio_header(header, packet);
  if (!offload) return;
  if (offload->checksum_state == ChecksumState::kUnchecked) {
    require(offload->gso_kind == GsoKind::kNone);
    return;
  }
  const std::optional<wire::OffloadTarget> target = wire::OffloadTarget::find(packet);
  require(target.has_value());
  require(target->upper_offset + target->checksum_offset() + 2 <= target->length);
  require(target->header_bytes <= target->length && target->length <= packet.size());
  if (offload->gso_kind != GsoKind::kNone) {
    require(offload->checksum_state == ChecksumState::kPartial);
    require(offload->gso_bytes > 0 && offload->gso_bytes < target->payload_bytes());
    require((offload->gso_kind == GsoKind::kUdp) == (target->protocol == 17));
    require((offload->gso_kind == GsoKind::kTcp6) ==
            (target->version == 6 && target->protocol == 6));
  }
  if (offload->checksum_state != ChecksumState::kPartial) return;
  std::array<uint8_t, wire::kVirtioNetHeaderBytesMax> again;
  again.fill(0xa5);
  require(wire::write_virtio_header({again.data(), header.size()}, packet, *offload));
  const std::optional<Offload> reread =
      wire::read_virtio_header({again.data(), header.size()}, packet);
  require(reread && reread->checksum_state == offload->checksum_state &&
          reread->gso_kind == offload->gso_kind && reread->gso_bytes == offload->gso_bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  for (const size_t header_bytes : {wire::kVirtioNetHeaderBytes, wire::kVirtioNetHeaderBytesMax}) {
    if (size < header_bytes) return 0;
    // Copies of their exact size, so that a read behind the end is seen.
    const std::vector<uint8_t> header(data, data + header_bytes);
    const std::vector<uint8_t> packet(data + header_bytes, data + size);
    check_header(header, packet);
    // Writing must withstand any offload of any packet.
    std::array<uint8_t, wire::kVirtioNetHeaderBytesMax> out{};
    for (uint8_t kind = 0; kind < 4; ++kind) {
      const Offload any = {ChecksumState::kPartial, static_cast<GsoKind>(kind),
                           wire::load16(header.data() + 4)};
      (void)wire::write_virtio_header({out.data(), header_bytes}, packet, any);
    }
  }
  return 0;
}
