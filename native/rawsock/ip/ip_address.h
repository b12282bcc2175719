// IP addresses of both families, and the set of addresses that a link answers to.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace apo {

struct IpAddress {
  uint8_t version = 4;  // 4 or 6
  std::array<uint8_t, 16> bytes{};

  static IpAddress from_bytes(uint8_t version, const uint8_t* at) {
    IpAddress address;
    address.version = version;
    std::memcpy(address.bytes.data(), at, version == 4 ? 4 : 16);
    return address;
  }
  [[nodiscard]] size_t size() const { return version == 4 ? 4 : 16; }
  [[nodiscard]] bool operator==(const IpAddress& other) const = default;
};

struct IpPrefix {
  IpAddress address;
  uint8_t prefix_bits = 32;
};

// The addresses of one link; few, so a scan beats a table.
class AddressSet {
 public:
  static constexpr size_t kMax = 16;

  bool add(const IpPrefix& prefix) {
    if (count_ == kMax) return false;
    entries_[count_++] = prefix;
    return true;
  }
  [[nodiscard]] size_t size() const { return count_; }
  [[nodiscard]] const IpPrefix& at(size_t index) const { return entries_[index]; }
  [[nodiscard]] bool contains(uint8_t version, const uint8_t* address) const {
    for (size_t i = 0; i < count_; ++i) {
      const IpAddress& own = entries_[i].address;
      if (own.version == version && std::memcmp(own.bytes.data(), address, own.size()) == 0) {
        return true;
      }
    }
    return false;
  }

 private:
  std::array<IpPrefix, kMax> entries_{};
  size_t count_ = 0;
};

}  // namespace apo
