// Splits an IP packet that is longer than the path takes (RFC 791 3.2, RFC 8200 4.5), and draws the
// identifications under which receivers put the pieces together again.
//
//   auto fragments = Fragmenter::make(packet, mtu, identifications.next(6, from, to));
//   while (fragments && (length = fragments->next(buffer)) > 0) send({buffer, length});
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "ip/steer_hash.h"

namespace apo {

// Identifications that nobody outside can guess, and that come again as late as they can: a keyed
// hash of the two addresses plus a counter, which the pair shares with few others (RFC 7739 5.3; for
// IPv4, RFC 6274 3.5.2.1).
class IdentificationSource {
 public:
  explicit IdentificationSource(SteerKey key);

  // IPv4 has room for the low 16 bits. `source` and `destination` have 4 or 16 bytes.
  [[nodiscard]] uint32_t next(uint8_t version, const uint8_t* source, const uint8_t* destination);

 private:
  static constexpr size_t kCounters = 1024;

  SteerKey key_;
  std::array<uint32_t, kCounters> counters_{};
};

// The pieces of one packet, in order; a packet that fits is one piece. It looks at the packet again
// at each step, so the packet must stay as it is meanwhile.
class Fragmenter {
 public:
  // nullopt: not one whole IP packet, already a fragment (IPv6), or an MTU that leaves no room (of
  // IPv6, the first piece must hold all extension headers and eight bytes: RFC 8200 4.5). Don't
  // fragment is not looked at: whoever calls this has decided; the pieces do not have it set.
  [[nodiscard]] static std::optional<Fragmenter> make(std::span<const uint8_t> packet, size_t mtu,
                                                      uint32_t identification);

  // Writes the next piece, at most `mtu` bytes. Its length; 0 when there is none, or `out` is too
  // small for it (it can be asked for again).
  [[nodiscard]] size_t next(std::span<uint8_t> out);
  [[nodiscard]] bool done() const { return at_ == payload_.size(); }

 private:
  Fragmenter() = default;
  static std::optional<Fragmenter> make4(std::span<const uint8_t> packet, size_t mtu);
  static std::optional<Fragmenter> make6(std::span<const uint8_t> packet, size_t mtu);
  void write_header4(uint8_t* out, size_t piece_bytes) const;
  void write_header6(uint8_t* out, size_t piece_bytes) const;

  uint8_t version_ = 4;
  std::span<const uint8_t> header_;   // what each piece starts with (IPv4: the first piece)
  std::span<const uint8_t> payload_;  // what is split
  size_t at_ = 0;                     // how much of it has been given away
  size_t first_piece_max_ = 0;
  size_t later_piece_max_ = 0;
  uint32_t identification_ = 0;
  // IPv4: options of the pieces after the first (RFC 791 3.1: those that say so are copied).
  std::array<uint8_t, 40> copied_options_{};
  size_t copied_options_bytes_ = 0;
  // IPv6: where in `header_` the field lies that will say "fragment header", and what it says now.
  size_t next_header_field_ = 0;
  uint8_t next_header_ = 0;
};

}  // namespace apo
