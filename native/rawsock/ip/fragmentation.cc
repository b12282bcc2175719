#include "ip/fragmentation.h"

#include <algorithm>
#include <cstring>

#include "wire/byte_order.h"
#include "wire/checksum.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace apo {
namespace {

using wire::Ipv4View;
using wire::Ipv6View;

constexpr size_t kFragmentHeaderBytes = 8;
constexpr size_t kUnit = 8;  // offsets count in these
constexpr size_t kIpv4PayloadMax = 65'535 - Ipv4View::kHeaderBytes;

uint32_t hash_pair(SteerKey key, uint8_t version, const uint8_t* source,
                   const uint8_t* destination) {
  const size_t address_bytes = version == 4 ? 4 : 16;
  HalfSipHash hash(key);
  hash.add(version);
  for (size_t i = 0; i < address_bytes; i += 4) hash.add(wire::load32(source + i));
  for (size_t i = 0; i < address_bytes; i += 4) hash.add(wire::load32(destination + i));
  return hash.finish();
}

// The options that go into every piece, padded to a multiple of four. Malformed ones are left out
// from the first bad byte on.
size_t copy_options(std::span<const uint8_t> options, std::array<uint8_t, 40>& out) {
  constexpr uint8_t kEnd = 0, kNop = 1, kCopied = 0x80;
  size_t written = 0;
  for (size_t at = 0; at < options.size() && options[at] != kEnd;) {
    if (options[at] == kNop) {
      ++at;
      continue;
    }
    const size_t length = at + 1 < options.size() ? options[at + 1] : 0;
    if (length < 2 || length > options.size() - at) break;
    if ((options[at] & kCopied) != 0) {
      std::memcpy(out.data() + written, options.data() + at, length);
      written += length;
    }
    at += length;
  }
  while (written % 4 != 0) out[written++] = kEnd;
  return written;
}

// Room for data behind a header, in whole units.
size_t piece_max(size_t mtu, size_t header_bytes) {
  return mtu <= header_bytes ? 0 : (mtu - header_bytes) / kUnit * kUnit;
}

}  // namespace

IdentificationSource::IdentificationSource(SteerKey key) : key_(key) {
  HalfSipHash hash(key_);
  for (uint32_t& counter : counters_) {
    hash.add(0x636f756e);
    counter = HalfSipHash(hash).finish();
  }
}

uint32_t IdentificationSource::next(uint8_t version, const uint8_t* source,
                                    const uint8_t* destination) {
  // Two secrets from one: the second hash's key differs by a constant.
  const uint32_t offset = hash_pair(key_, version, source, destination);
  const SteerKey other = {key_.low ^ 0x9e3779b9, key_.high};
  uint32_t& counter = counters_[hash_pair(other, version, source, destination) % kCounters];
  return offset + counter++;
}

std::optional<Fragmenter> Fragmenter::make(std::span<const uint8_t> packet, size_t mtu,
                                           uint32_t identification) {
  std::optional<Fragmenter> made;
  if (!packet.empty()) made = packet[0] >> 4 == 4 ? make4(packet, mtu) : make6(packet, mtu);
  if (made) made->identification_ = identification;
  return made;
}

std::optional<Fragmenter> Fragmenter::make4(std::span<const uint8_t> packet, size_t mtu) {
  const auto ip = Ipv4View::parse(packet);
  if (!ip || ip->payload().empty()) return std::nullopt;
  const size_t first_unit = ip->fragment_word() & Ipv4View::kFragmentOffsetMask;
  if (first_unit * kUnit + ip->payload().size() > kIpv4PayloadMax) return std::nullopt;
  Fragmenter made;
  made.version_ = 4;
  made.header_ = ip->header();
  made.payload_ = ip->payload();
  made.copied_options_bytes_ = copy_options(ip->options(), made.copied_options_);
  made.first_piece_max_ = piece_max(mtu, ip->header_bytes());
  made.later_piece_max_ = piece_max(mtu, Ipv4View::kHeaderBytes + made.copied_options_bytes_);
  if (made.first_piece_max_ == 0) return std::nullopt;
  return made;
}

std::optional<Fragmenter> Fragmenter::make6(std::span<const uint8_t> packet, size_t mtu) {
  const auto ip = Ipv6View::parse(packet);
  if (!ip) return std::nullopt;
  const wire::Ipv6UpperLayer upper = wire::ipv6_upper_layer(*ip);
  if (upper.state != wire::Ipv6UpperLayer::State::kFound) return std::nullopt;
  const std::span<const uint8_t> bytes = ip->bytes();
  // What routers look at stays in front of the fragment header: everything up to a routing header,
  // or else the hop-by-hop options. The walk above has checked all lengths.
  size_t split = Ipv6View::kHeaderBytes;
  size_t split_field = wire::ipv6_field::kNextHeader;
  size_t offset = Ipv6View::kHeaderBytes;
  uint8_t next = ip->next_header();
  while (offset < upper.offset) {
    if (next == wire::ip_protocol::kFragment) return std::nullopt;
    const size_t header_at = offset;
    offset += 8 + 8 * static_cast<size_t>(bytes[header_at + 1]);
    if (next == wire::ip_protocol::kHopByHop || next == wire::ip_protocol::kRouting) {
      split = offset;
      split_field = header_at;
    }
    next = bytes[header_at];
  }
  Fragmenter made;
  made.version_ = 6;
  made.header_ = bytes.first(split);
  made.payload_ = bytes.subspan(split);
  made.next_header_field_ = split_field;
  made.next_header_ = bytes[split_field];
  made.first_piece_max_ = piece_max(mtu, split + kFragmentHeaderBytes);
  made.later_piece_max_ = made.first_piece_max_;
  if (made.payload_.empty() || made.first_piece_max_ < upper.offset - split + kUnit) {
    return std::nullopt;
  }
  return made;
}

size_t Fragmenter::next(std::span<uint8_t> out) {
  if (done()) return 0;
  const size_t rest = payload_.size() - at_;
  const size_t piece = std::min(rest, at_ == 0 ? first_piece_max_ : later_piece_max_);
  const size_t options_bytes =
      at_ == 0 ? header_.size() - Ipv4View::kHeaderBytes : copied_options_bytes_;
  const size_t header_bytes = version_ == 4 ? Ipv4View::kHeaderBytes + options_bytes
                                            : header_.size() + kFragmentHeaderBytes;
  if (header_bytes + piece > out.size()) return 0;
  std::memcpy(out.data() + header_bytes, payload_.data() + at_, piece);
  if (version_ == 4) {
    write_header4(out.data(), piece);
  } else {
    write_header6(out.data(), piece);
  }
  at_ += piece;
  return header_bytes + piece;
}

void Fragmenter::write_header4(uint8_t* out, size_t piece_bytes) const {
  using namespace wire;
  std::memcpy(out, header_.data(), at_ == 0 ? header_.size() : Ipv4View::kHeaderBytes);
  size_t header_bytes = header_.size();
  if (at_ > 0) {
    header_bytes = Ipv4View::kHeaderBytes + copied_options_bytes_;
    std::memcpy(out + ipv4_field::kOptions, copied_options_.data(), copied_options_bytes_);
    out[ipv4_field::kVersionIhl] = static_cast<uint8_t>(0x40 | header_bytes / 4);
  }
  store16(out + ipv4_field::kTotalLength, static_cast<uint32_t>(header_bytes + piece_bytes));
  store16(out + ipv4_field::kIdentification, identification_ & 0xffff);
  // A piece of a piece keeps its place in the whole.
  const uint16_t before = load16(header_.data() + ipv4_field::kFragment);
  const size_t units = (before & Ipv4View::kFragmentOffsetMask) + at_ / kUnit;
  const bool more = at_ + piece_bytes < payload_.size() || (before & Ipv4View::kMoreFragments) != 0;
  store16(out + ipv4_field::kFragment,
          static_cast<uint32_t>(units) | (more ? Ipv4View::kMoreFragments : 0u));
  store16(out + ipv4_field::kChecksum, 0);
  store16(out + ipv4_field::kChecksum, checksum_finish(checksum_add(0, out, header_bytes)));
}

void Fragmenter::write_header6(uint8_t* out, size_t piece_bytes) const {
  using namespace wire;
  std::memcpy(out, header_.data(), header_.size());
  out[next_header_field_] = ip_protocol::kFragment;
  store16(out + ipv6_field::kPayloadLength,
          static_cast<uint32_t>(header_.size() - Ipv6View::kHeaderBytes + kFragmentHeaderBytes +
                                piece_bytes));
  uint8_t* fragment = out + header_.size();
  fragment[0] = next_header_;
  fragment[1] = 0;
  const bool more = at_ + piece_bytes < payload_.size();
  store16(fragment + 2, static_cast<uint32_t>(at_) | (more ? 1u : 0u));
  store32(fragment + 4, identification_);
}

}  // namespace apo
