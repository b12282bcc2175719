// The prefix table against a list that is searched from end to end: random additions and removals
// in crowded and in wide address spaces, of both families; and lookups while another thread changes
// it.
#include "guard/prefix_table.h"

#include <algorithm>
#include <random>
#include <thread>
#include <vector>

#include "check.h"

namespace {

using apo::IpAddress;
using apo::IpPrefix;
using apo::kListedAllowed;
using apo::kListedBlocked;
using apo::PrefixTable;
using Result = PrefixTable::Result;
using Random = std::mt19937_64;

bool holds(const IpPrefix& prefix, const IpAddress& address) {
  if (prefix.address.version != address.version) return false;
  for (unsigned bit = 0; bit < prefix.prefix_bits; ++bit) {
    const unsigned mask = 0x80u >> (bit % 8);
    if (((prefix.address.bytes[bit / 8] ^ address.bytes[bit / 8]) & mask) != 0) return false;
  }
  return true;
}

class Model {
 public:
  bool add(const IpPrefix& prefix, uint8_t list) {
    if (Entry* entry = at(prefix)) {
      if ((entry->listing & list) != 0) return false;
      entry->listing |= list;
    } else {
      entries_.push_back({prefix, list});
    }
    return true;
  }
  bool remove(const IpPrefix& prefix, uint8_t list) {
    Entry* entry = at(prefix);
    if (entry == nullptr || (entry->listing & list) == 0) return false;
    entry->listing = static_cast<uint8_t>(entry->listing & ~list);
    if (entry->listing == 0) {
      *entry = entries_.back();
      entries_.pop_back();
    }
    return true;
  }
  [[nodiscard]] uint8_t find(const IpAddress& address) const {
    int longest = -1;
    uint8_t listing = 0;
    for (const Entry& entry : entries_) {
      if (entry.prefix.prefix_bits > longest && holds(entry.prefix, address)) {
        longest = entry.prefix.prefix_bits;
        listing = entry.listing;
      }
    }
    return listing;
  }
  [[nodiscard]] size_t size() const { return entries_.size(); }
  [[nodiscard]] size_t count(uint8_t list) const {
    return static_cast<size_t>(
        std::count_if(entries_.begin(), entries_.end(),
                      [list](const Entry& e) { return (e.listing & list) != 0; }));
  }
  [[nodiscard]] const IpPrefix& pick(Random& random) const {
    return entries_[random() % entries_.size()].prefix;
  }

 private:
  struct Entry {
    IpPrefix prefix;
    uint8_t listing;
  };
  Entry* at(const IpPrefix& prefix) {
    for (Entry& entry : entries_) {
      if (entry.prefix.prefix_bits == prefix.prefix_bits && holds(prefix, entry.prefix.address) &&
          holds(entry.prefix, prefix.address)) {
        return &entry;
      }
    }
    return nullptr;
  }
  std::vector<Entry> entries_;
};

// How addresses are drawn: bytes before `varied` are fixed, the rest are random in `mask`.
struct Space {
  uint8_t version;
  size_t fixed_bytes;
  uint8_t mask;
  unsigned bits_min;
};

IpAddress draw(const Space& space, Random& random) {
  IpAddress address;
  address.version = space.version;
  for (size_t i = 0; i < address.size(); ++i) {
    address.bytes[i] = i < space.fixed_bytes ? 0x20 : static_cast<uint8_t>(random() & space.mask);
  }
  return address;
}

// An address that differs from the prefix's own in one bit, or in the bits behind it.
IpAddress near(const IpPrefix& prefix, Random& random) {
  IpAddress address = prefix.address;
  const size_t bits = 8 * address.size();
  for (size_t bit = prefix.prefix_bits; bit < bits; ++bit) {
    if ((random() & 1) != 0) address.bytes[bit / 8] ^= static_cast<uint8_t>(0x80u >> (bit % 8));
  }
  if (random() % 2 == 0) {
    const size_t bit = random() % bits;
    address.bytes[bit / 8] ^= static_cast<uint8_t>(0x80u >> (bit % 8));
  }
  return address;
}

void agrees_with_a_list(const Space& space, uint64_t seed, int rounds) {
  Random random(seed);
  PrefixTable table;
  Model model;
  const unsigned bits_max = space.version == 4 ? 32 : 128;
  for (int round = 0; round < rounds; ++round) {
    // Waves of growth and of shrinking: nodes are made, given up and used again.
    const bool grow = round / 400 % 2 == 0;
    const uint8_t list = random() % 3 == 0 ? kListedAllowed : kListedBlocked;
    IpPrefix prefix{draw(space, random), 0};
    prefix.prefix_bits =
        static_cast<uint8_t>(space.bits_min + random() % (bits_max - space.bits_min + 1));
    if (model.size() > 0 && random() % 4 != 0 && !grow) prefix = model.pick(random);
    if (random() % 10 < (grow ? 8u : 2u)) {
      CHECK((table.add(prefix, list) == Result::kDone) == model.add(prefix, list));
    } else {
      CHECK((table.remove(prefix, list) == Result::kDone) == model.remove(prefix, list));
    }
    CHECK(table.entries() == model.size());
    CHECK(table.entries(kListedBlocked) == model.count(kListedBlocked));
    CHECK(table.entries(kListedAllowed) == model.count(kListedAllowed));
    for (int probe = 0; probe < 8; ++probe) {
      const IpAddress address =
          probe < 4 || model.size() == 0 ? draw(space, random) : near(model.pick(random), random);
      CHECK(table.find(address.version, address.bytes.data()) == model.find(address));
    }
  }
  // And empty again, to the last.
  while (model.size() > 0) {
    const IpPrefix prefix = model.pick(random);
    for (const uint8_t list : {kListedBlocked, kListedAllowed}) {
      CHECK((table.remove(prefix, list) == Result::kDone) == model.remove(prefix, list));
    }
    const IpAddress address = near(prefix, random);
    CHECK(table.find(address.version, address.bytes.data()) == model.find(address));
  }
  CHECK(table.entries() == 0);
}

IpPrefix prefix4(uint8_t a, uint8_t b, uint8_t c, uint8_t d, uint8_t bits) {
  const uint8_t bytes[] = {a, b, c, d};
  return {IpAddress::from_bytes(4, bytes), bits};
}

uint8_t find4(const PrefixTable& table, uint8_t a, uint8_t b, uint8_t c, uint8_t d) {
  const uint8_t bytes[] = {a, b, c, d};
  return table.find(4, bytes);
}

void the_longest_prefix_of_both_lists_decides() {
  PrefixTable table;
  CHECK(find4(table, 10, 1, 2, 3) == 0);
  CHECK(table.add(prefix4(10, 9, 9, 9, 8), kListedBlocked) == Result::kDone);
  CHECK(table.add(prefix4(10, 0, 0, 0, 8), kListedBlocked) == Result::kUnchanged);
  CHECK(table.add(prefix4(10, 1, 2, 3, 32), kListedAllowed) == Result::kDone);
  CHECK(table.add(prefix4(0, 0, 0, 0, 0), kListedAllowed) == Result::kDone);
  CHECK(find4(table, 10, 1, 2, 3) == kListedAllowed);
  CHECK(find4(table, 10, 1, 2, 4) == kListedBlocked);
  CHECK(find4(table, 11, 1, 2, 3) == kListedAllowed);
  CHECK(table.add(prefix4(10, 0, 0, 0, 8), kListedAllowed) == Result::kDone);
  CHECK(find4(table, 10, 1, 2, 4) == (kListedAllowed | kListedBlocked));
  CHECK(table.entries() == 3 && table.entries(kListedAllowed) == 3);
  CHECK(table.remove(prefix4(10, 0, 0, 0, 9), kListedBlocked) == Result::kUnchanged);
  CHECK(table.remove(prefix4(10, 0, 0, 0, 8), kListedAllowed) == Result::kDone);
  CHECK(find4(table, 10, 1, 2, 4) == kListedBlocked);
  CHECK(table.add({IpAddress{}, 33}, kListedBlocked) == Result::kInvalid);
  IpAddress six;
  six.version = 6;
  CHECK(table.add({six, 129}, kListedBlocked) == Result::kInvalid);
  six.version = 5;
  CHECK(table.remove({six, 12}, kListedBlocked) == Result::kInvalid);
}

// A prefix that stays is found by every lookup, one that is never there by none, while a thread
// adds and removes around them: nodes above and below come, go and are used again.
void lookups_go_on_during_changes(uint8_t version) {
  PrefixTable table;
  const Space space{version, version == 4 ? size_t{2} : size_t{12}, 0xff, version == 4 ? 17u : 97u};
  const auto bits = static_cast<uint8_t>(version == 4 ? 32 : 128);
  Random random(7);
  std::vector<IpAddress> stays, never;
  for (int i = 0; i < 64; ++i) {
    stays.push_back(draw(space, random));
    never.push_back(stays.back());
    never.back().bytes[0] ^= 0x80;
    CHECK(table.add({stays.back(), bits}, kListedAllowed) != Result::kNoMemory);
  }
  std::atomic<bool> done{false};
  std::thread writer([&] {
    Random mine(8);
    std::vector<IpPrefix> added;
    for (int round = 0; round < 12'000; ++round) {
      if (added.size() < 500 || mine() % 2 == 0) {
        IpPrefix prefix{draw(space, mine), 0};
        prefix.prefix_bits =
            static_cast<uint8_t>(space.bits_min + mine() % (bits - space.bits_min));
        if (table.add(prefix, kListedBlocked) == Result::kDone) added.push_back(prefix);
      } else {
        std::swap(added[mine() % added.size()], added.back());
        CHECK(table.remove(added.back(), kListedBlocked) == Result::kDone);
        added.pop_back();
      }
    }
    done.store(true);
  });
  size_t looked = 0;
  while (!done.load()) {
    for (size_t i = 0; i < stays.size(); ++i, ++looked) {
      CHECK((table.find(version, stays[i].bytes.data()) & kListedAllowed) != 0);
      CHECK(table.find(version, never[i].bytes.data()) == 0);
      const IpAddress other = draw(space, random);
      CHECK(table.find(version, other.bytes.data()) <= (kListedAllowed | kListedBlocked));
    }
  }
  writer.join();
  CHECK(looked > 0);
}

// Nodes on the very way to the prefixes that are looked up come and go all the time, and readers are
// more than processors: now and then one is stopped half way down, and goes on among nodes that have
// been used again.
void readers_may_be_stopped_anywhere(uint8_t version) {
  PrefixTable table;
  const auto bits = static_cast<uint8_t>(version == 4 ? 32 : 128);
  Random random(11);
  std::vector<IpAddress> stays;
  for (int i = 0; i < 256; ++i) {
    stays.push_back(draw({version, 1, 0xff, 0}, random));
    CHECK(table.add({stays.back(), bits}, kListedAllowed) == Result::kDone);
  }
  std::atomic<bool> done{false};
  std::vector<std::thread> readers;
  for (int reader = 0; reader < 4; ++reader) {
    readers.emplace_back([&] {
      while (!done.load(std::memory_order_relaxed)) {
        for (const IpAddress& address : stays) {
          CHECK(table.find(version, address.bytes.data()) == kListedAllowed);
        }
      }
    });
  }
  for (int round = 0; round < 500; ++round) {
    for (const IpAddress& address : stays) {
      IpPrefix sibling{address, bits};
      sibling.address.bytes[address.size() - 1] ^= static_cast<uint8_t>(1 << round % 8);
      CHECK(table.add(sibling, kListedBlocked) == Result::kDone);
      CHECK(table.remove(sibling, kListedBlocked) == Result::kDone);
    }
  }
  done.store(true);
  for (std::thread& reader : readers) reader.join();
}

// So many removals that nodes and leaves are used again, and no more memory than before.
void memory_is_used_again(const Space& space) {
  PrefixTable table;
  Random random(3);
  const auto wave = [&] {
    std::vector<IpPrefix> prefixes;
    for (int i = 0; i < 40'000; ++i) {
      const auto bits = static_cast<uint8_t>(space.bits_min + random() % (129 - space.bits_min));
      prefixes.push_back({draw(space, random), bits});
      CHECK(table.add(prefixes.back(), kListedBlocked) != Result::kNoMemory);
    }
    const size_t bytes = table.memory_bytes();
    for (const IpPrefix& prefix : prefixes) (void)table.remove(prefix, kListedBlocked);
    CHECK(table.entries() == 0);
    return bytes;
  };
  (void)wave();
  const size_t second = wave();
  for (int i = 0; i < 4; ++i) CHECK(wave() <= second);
  CHECK(second < 40'000 * 185 + 3 * 1024 * 1024);
}

}  // namespace

int main() {
  the_longest_prefix_of_both_lists_decides();
  agrees_with_a_list({4, 0, 0xff, 0}, 1, 3000);
  agrees_with_a_list({4, 2, 0x0f, 14}, 2, 3000);
  agrees_with_a_list({4, 3, 0xff, 22}, 3, 3000);
  agrees_with_a_list({6, 0, 0xff, 0}, 4, 3000);
  agrees_with_a_list({6, 0, 0x01, 0}, 5, 3000);
  agrees_with_a_list({6, 14, 0xff, 100}, 6, 3000);
  agrees_with_a_list({6, 4, 0x11, 12}, 7, 3000);
  lookups_go_on_during_changes(4);
  lookups_go_on_during_changes(6);
  readers_may_be_stopped_anywhere(4);
  readers_may_be_stopped_anywhere(6);
  memory_is_used_again({6, 2, 0xff, 48});
  memory_is_used_again({6, 13, 0xff, 104});
}
