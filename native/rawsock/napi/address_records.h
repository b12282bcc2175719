// Addresses and routes as JavaScript hands them over: packed records, mirrored in
// src/layer3-ip/ip-prefix.ts. An address: version (4 or 6), prefix bits, 1 when the whole prefix is
// meant, 0, and 16 address bytes (IPv4: the first four). A route: two of them, to and via.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ip/ip_address.h"

namespace apo {

inline constexpr size_t kAddressRecordBytes = 20;
inline constexpr size_t kRouteRecordBytes = 2 * kAddressRecordBytes;

// False: not a record.
[[nodiscard]] inline bool read_address(std::span<const uint8_t> record, OwnAddress& own) {
  if (record.size() != kAddressRecordBytes || (record[0] != 4 && record[0] != 6)) return false;
  own.prefix.address = IpAddress::from_bytes(record[0], record.data() + 4);
  own.prefix.prefix_bits = record[1];
  own.whole = record[2] != 0;
  return record[1] <= 8 * own.prefix.address.size();
}

inline void write_address(const OwnAddress& own, std::vector<uint8_t>& records) {
  records.insert(records.end(),
                 {own.prefix.address.version, own.prefix.prefix_bits, own.whole, uint8_t{0}});
  records.insert(records.end(), own.prefix.address.bytes.begin(), own.prefix.address.bytes.end());
}

[[nodiscard]] inline bool read_addresses(std::span<const uint8_t> records, AddressSet& addresses) {
  if (records.size() % kAddressRecordBytes != 0) return false;
  for (size_t at = 0; at < records.size(); at += kAddressRecordBytes) {
    OwnAddress own;
    if (!read_address(records.subspan(at, kAddressRecordBytes), own) || !addresses.add(own)) {
      return false;
    }
  }
  return true;
}

[[nodiscard]] inline bool read_routes(std::span<const uint8_t> records,
                                      std::vector<Route>& routes) {
  if (records.size() % kRouteRecordBytes != 0) return false;
  for (size_t at = 0; at < records.size(); at += kRouteRecordBytes) {
    OwnAddress to, via;
    if (!read_address(records.subspan(at, kAddressRecordBytes), to) ||
        !read_address(records.subspan(at + kAddressRecordBytes, kAddressRecordBytes), via)) {
      return false;
    }
    routes.push_back({to.prefix, via.prefix.address});
  }
  return true;
}

}  // namespace apo
