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

// Of the same version. Two words or one: shorter than a call that compares any number of bytes.
[[nodiscard]] inline bool same_address(uint8_t version, const uint8_t* a, const uint8_t* b) {
  if (version == 4) {
    uint32_t left, right;
    std::memcpy(&left, a, sizeof left);
    std::memcpy(&right, b, sizeof right);
    return left == right;
  }
  uint64_t left[2], right[2];
  std::memcpy(left, a, sizeof left);
  std::memcpy(right, b, sizeof right);
  return left[0] == right[0] && left[1] == right[1];
}

struct IpPrefix {
  IpAddress address;
  uint8_t prefix_bits = 32;

  [[nodiscard]] bool contains(uint8_t version, const uint8_t* at) const {
    if (version != address.version) return false;
    const size_t whole = prefix_bits / 8;
    if (std::memcmp(address.bytes.data(), at, whole) != 0) return false;
    const uint8_t rest = prefix_bits % 8;
    return rest == 0 || (address.bytes[whole] ^ at[whole]) >> (8 - rest) == 0;
  }
};

// One of our own: an address with its prefix on the link, or all addresses of a prefix.
struct OwnAddress {
  IpPrefix prefix;
  bool whole = false;

  [[nodiscard]] bool contains(uint8_t version, const uint8_t* at) const {
    if (whole) return prefix.contains(version, at);
    return version == prefix.address.version &&
           same_address(version, prefix.address.bytes.data(), at);
  }
};

// Where packets to a prefix go: to the gateway `via`.
struct Route {
  IpPrefix to;
  IpAddress via;
};

// The addresses of one link; few entries, so a scan beats a table.
class AddressSet {
 public:
  static constexpr size_t kMax = 64;

  bool add(const OwnAddress& own) {
    if (count_ == kMax) return false;
    entries_[count_++] = own;
    return true;
  }
  [[nodiscard]] size_t size() const { return count_; }
  [[nodiscard]] const OwnAddress& at(size_t index) const { return entries_[index]; }
  [[nodiscard]] bool contains(uint8_t version, const uint8_t* address) const {
    for (size_t i = 0; i < count_; ++i) {
      if (entries_[i].contains(version, address)) return true;
    }
    return false;
  }

 private:
  std::array<OwnAddress, kMax> entries_{};
  size_t count_ = 0;
};

}  // namespace apo
