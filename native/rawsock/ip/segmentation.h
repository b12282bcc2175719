// Segmentation in software: splits a super-packet, of which every segment is to be a packet of its
// own, for a link that does not do it; and completes the checksum that was left partial for a link
// which does not do that.
//
//   auto segments = Segmenter::make(packet, offload);
//   while (segments && (length = segments->next(buffer)) > 0) send({buffer, length});
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "wire/packet_descriptor.h"

namespace apo {

// Finishes a partial checksum in place: its field holds the pseudo header's sum, and what is written
// is the checksum of the whole. TCP, UDP, ICMP and ICMPv6, behind options and extension headers too.
// False, and nothing changed: not such a packet, or a fragment of one.
[[nodiscard]] bool complete_checksum(std::span<uint8_t> packet);

// The packets that a super-packet stands for, in order. It looks at the packet again at each step,
// so the packet must stay as it is meanwhile.
class Segmenter {
 public:
  // A super-packet of 65,535 bytes in the smallest segments that somebody could mean.
  static constexpr size_t kSegmentsMax = 2048;

  // nullopt: not a whole packet of the protocol that `offload.gso_kind` names, segments of no bytes,
  // or too many. The packet's checksum may have any state: each segment gets its own, whole.
  [[nodiscard]] static std::optional<Segmenter> make(std::span<const uint8_t> packet,
                                                     const Offload& offload);

  // Writes the next segment. Its length; 0 when there is none, or `out` is too small for it (it can
  // be asked for again).
  [[nodiscard]] size_t next(std::span<uint8_t> out);
  [[nodiscard]] bool done() const { return index_ == segments_; }
  [[nodiscard]] size_t segments() const { return segments_; }
  // Of the longest segment, as an IP packet.
  [[nodiscard]] size_t longest_bytes() const;

 private:
  Segmenter() = default;
  void write_tcp(uint8_t* upper, bool last) const;

  uint8_t version_ = 4;
  uint8_t protocol_ = 0;
  std::span<const uint8_t> headers_;  // IP and upper layer
  std::span<const uint8_t> payload_;
  size_t upper_offset_ = 0;
  size_t segment_bytes_ = 0;
  size_t segments_ = 0;
  size_t index_ = 0;
};

}  // namespace apo
