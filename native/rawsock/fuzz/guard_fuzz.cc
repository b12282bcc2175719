// Any bytes at the guard: as packets to a view whose lists, limits and clock the input changes on
// the way, and as changes of the lists. What the lists say is held against a search from end to
// end.
//
// The input is a row of records: what (1 byte), how long (1 byte), and so many bytes.
#include <algorithm>
#include <map>
#include <vector>

#include "guard/guard.h"
#include "guard/tcp_rules.h"
#include "input_harness.h"

namespace {

using namespace apo;
using fuzz::require;

// Prefixes by their bits, so that a lookup can try every length.
struct Model {
  std::map<std::pair<std::vector<bool>, uint8_t>, uint8_t> entries;  // by bits and version

  static std::vector<bool> bits_of(const IpAddress& address, unsigned count) {
    std::vector<bool> bits(count);
    for (unsigned i = 0; i < count; ++i) bits[i] = (address.bytes[i / 8] >> (7 - i % 8) & 1) != 0;
    return bits;
  }
  void change(const IpPrefix& prefix, bool add, uint8_t list) {
    const std::pair key(bits_of(prefix.address, prefix.prefix_bits), prefix.address.version);
    uint8_t& listing = entries[key];
    listing = static_cast<uint8_t>(add ? listing | list : listing & ~list);
    if (listing == 0) entries.erase(key);
  }
  [[nodiscard]] uint8_t find(const IpAddress& address) const {
    for (int bits = static_cast<int>(8 * address.size()); bits >= 0; --bits) {
      const auto found =
          entries.find({bits_of(address, static_cast<unsigned>(bits)), address.version});
      if (found != entries.end()) return found->second;
    }
    return 0;
  }
};

void change_lists(std::span<const uint8_t> body, bool add, Guard& guard, Model& model) {
  if (body.size() < 2) return;
  IpPrefix prefix;
  prefix.address.version = (body[0] & 1) != 0 ? 6 : 4;
  const size_t bytes = std::min(body.size() - 2, prefix.address.size());
  std::copy_n(body.data() + 2, bytes, prefix.address.bytes.begin());
  prefix.prefix_bits = body[1];
  const uint8_t list = (body[0] & 2) != 0 ? kListedAllowed : kListedBlocked;
  const auto outcome =
      guard.change(add ? Guard::Change::kAdd : Guard::Change::kRemove, list, {&prefix, 1});
  const bool valid = prefix.prefix_bits <= 8 * prefix.address.size();
  require((outcome.taken == 1) == valid);
  if (valid) model.change(prefix, add, list);
  require(guard.lists().entries() == model.entries.size());
}

void pass_packet(std::span<const uint8_t> body, GuardView& view, Guard& guard, const Model& model,
                 uint64_t now_us) {
  const LinkCounter verdict = view.admit(body, now_us);
  const PacketSource source = packet_source(body);
  if (source.version != 0) {
    const IpAddress address = IpAddress::from_bytes(source.version, source.address);
    const uint8_t listing = model.find(address);
    require(guard.lists().find(address.version, address.bytes.data()) == listing);
    if (listing == kListedBlocked) require(verdict == LinkCounter::kRxDroppedBlacklist);
    if ((listing & kListedAllowed) != 0) require(verdict == LinkCounter::kRxPackets);
    if (listing == 0) require(verdict != LinkCounter::kRxDroppedBlacklist);
  } else {
    require(verdict == LinkCounter::kRxPackets);
  }
  if (verdict != LinkCounter::kRxPackets) {
    view.dropped(verdict, body, now_us);
    return;
  }
  const LinkCounter tcp = check_tcp_header(wire::TcpView::parse(body));
  if (tcp != LinkCounter::kRxPackets) view.dropped(tcp, body, now_us);
}

void set_limit(std::span<const uint8_t> body, Guard& guard) {
  if (body.size() < 10) return;
  const RateLimit limit{wire::load32(&body[0]), wire::load32(&body[4]), body[8], body[9]};
  require(guard.set_limit(limit) == limit.is_valid());
}

void check_offenders(const Guard& guard) {
  for (const Offender& one : guard.offenders()) {
    require(one.count > 0 && one.byte_count >= 20 && one.byte_count <= Offender::kBytesMax);
    require(one.address.version == one.bytes[0] >> 4);
    require(is_offence(one.last_reason));
  }
}

void empty(Guard& guard, const Model& model) {
  for (const auto& [key, listing] : model.entries) {
    IpPrefix prefix;
    prefix.address.version = key.second;
    prefix.prefix_bits = static_cast<uint8_t>(key.first.size());
    for (size_t i = 0; i < key.first.size(); ++i) {
      if (key.first[i]) prefix.address.bytes[i / 8] |= static_cast<uint8_t>(0x80 >> (i % 8));
    }
    for (const uint8_t list : {kListedBlocked, kListedAllowed}) {
      const auto outcome = guard.change(Guard::Change::kRemove, list, {&prefix, 1});
      require(outcome.changed == ((listing & list) != 0));
    }
  }
  require(guard.lists().entries() == 0 && guard.set_limit({}));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // One for all runs, for speed, and so that its memory is used again and again.
  static const auto guard = std::make_shared<Guard>(HashKey{1, 2});
  GuardView view(guard);
  view.begin_batch();
  Model model;
  uint64_t now_us = 1'000'000;
  std::span<const uint8_t> rest(data, size);
  while (rest.size() >= 2) {
    const uint8_t what = rest[0];
    const size_t length = std::min<size_t>(rest[1], rest.size() - 2);
    const auto body = rest.subspan(2, length);
    rest = rest.subspan(2 + length);
    if (what % 8 == 0) {
      set_limit(body, *guard);
      view.begin_batch();
    } else if (what % 8 == 1) {
      now_us = body.size() < 4 ? 0 : uint64_t{wire::load32(body.data())} << (what >> 3);
    } else if (what % 8 < 5) {
      change_lists(body, what % 8 != 4, *guard, model);
    } else {
      now_us += what;
      pass_packet(body, view, *guard, model, now_us);
    }
  }
  // They grow from run to run, so not each time.
  if (size % 8 == 0) check_offenders(*guard);
  empty(*guard, model);
  return 0;
}
