// IGMP (RFC 1112, 2236, 3376) and MLD (RFC 2710, 3810): the fields and types of the messages. An MLD
// message is one of ICMPv6; reports of both newest versions have the same layout.
#pragma once

#include <cstddef>
#include <cstdint>

namespace apo::wire {

namespace igmp_field {
inline constexpr size_t kType = 0;
inline constexpr size_t kCode = 1;  // of a query: its longest response time
inline constexpr size_t kChecksum = 2;
inline constexpr size_t kGroup = 4;
inline constexpr size_t kRecordCount = 6;  // of the newest reports
inline constexpr size_t kRecords = 8;
}  // namespace igmp_field

namespace mld_field {
inline constexpr size_t kDelay = 4;
inline constexpr size_t kGroup = 8;
}  // namespace mld_field

namespace igmp_type {
inline constexpr uint8_t kQuery = 0x11;
inline constexpr uint8_t kReport1 = 0x12;
inline constexpr uint8_t kReport2 = 0x16;
inline constexpr uint8_t kLeave = 0x17;
inline constexpr uint8_t kReport3 = 0x22;
}  // namespace igmp_type

namespace mld_type {
inline constexpr uint8_t kQuery = 130;
inline constexpr uint8_t kReport1 = 131;
inline constexpr uint8_t kDone = 132;
inline constexpr uint8_t kReport2 = 143;
}  // namespace mld_type

}  // namespace apo::wire
