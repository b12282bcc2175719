#include "super_packet.h"

#include <string.h>

enum { kFin = 1, kPush = 8, kCwr = 128 };

static uint16_t get16(const uint8_t* at) { return (uint16_t)(at[0] << 8 | at[1]); }

static void put16(uint8_t* at, uint32_t value) {
  at[0] = (uint8_t)(value >> 8);
  at[1] = (uint8_t)value;
}

static uint32_t get32(const uint8_t* at) { return (uint32_t)get16(at) << 16 | get16(at + 2); }

static void put32(uint8_t* at, uint32_t value) {
  put16(at, value >> 16);
  put16(at + 2, value);
}

static uint32_t sum(const uint8_t* at, int length, uint32_t start) {
  uint64_t total = start;
  for (; length > 1; length -= 2, at += 2) total += get16(at);
  if (length) total += (uint32_t)at[0] << 8;
  while (total >> 16) total = (total & 0xffff) + (total >> 16);
  return (uint32_t)total;
}

static int is_ipv6(const struct packet* packet) { return packet->bytes[0] >> 4 == 6; }

static int network_bytes(const struct packet* packet) {
  return is_ipv6(packet) ? 40 : (packet->bytes[0] & 15) * 4;
}

static int is_super(const struct packet* packet) {
  const int type = packet->vnet.gso_type & ~kVnetEcn;
  return (type == kVnetTcp4 || type == kVnetTcp6) && packet->vnet.gso_bytes > 0;
}

static int header_bytes(const struct packet* packet) {
  const int at = network_bytes(packet);
  return at + (packet->bytes[at + 12] >> 4) * 4;
}

int segment_count(const struct packet* packet) {
  if (!is_super(packet)) return 1;
  const int payload = packet->length - header_bytes(packet), each = packet->vnet.gso_bytes;
  return payload <= each ? 1 : (payload + each - 1) / each;
}

static void write_ipv4_checksum(uint8_t* ip) {
  put16(ip + 10, 0);
  put16(ip + 10, ~sum(ip, (ip[0] & 15) * 4, 0));
}

// The sum over the pseudo-header: what a checksum that is left to the device begins with.
static uint32_t pseudo_sum(const struct packet* packet, int protocol) {
  const uint8_t* ip = packet->bytes;
  const uint32_t start = (uint32_t)(protocol + packet->length - network_bytes(packet));
  return is_ipv6(packet) ? sum(ip + 8, 32, start) : sum(ip + 12, 8, start);
}

void take_segments(const struct packet* packet, int first, int count, struct packet* out) {
  const int network = network_bytes(packet), headers = header_bytes(packet);
  const int each = packet->vnet.gso_bytes, segments = segment_count(packet);
  const int from = first * each, last = first + count == segments;
  const int to = last ? packet->length - headers : (first + count) * each;
  out->vnet = packet->vnet;
  out->vnet.header_bytes = (uint16_t)headers;  // where it came from all of it may have lain in one piece
  if (count == 1) out->vnet.gso_type = 0, out->vnet.gso_bytes = 0;
  out->length = headers + to - from;
  memcpy(out->bytes, packet->bytes, (size_t)headers);
  memcpy(out->bytes + headers, packet->bytes + headers + from, (size_t)(to - from));
  uint8_t *ip = out->bytes, *tcp = ip + network;
  if (is_ipv6(packet)) {
    put16(ip + 4, (uint32_t)(out->length - 40));
  } else {
    put16(ip + 2, (uint32_t)out->length);
    put16(ip + 4, (uint32_t)(get16(ip + 4) + first));
    write_ipv4_checksum(ip);
  }
  put32(tcp + 4, get32(tcp + 4) + (uint32_t)from);
  if (!last) tcp[13] &= (uint8_t) ~(kFin | kPush);
  if (first > 0) tcp[13] &= (uint8_t)~kCwr;
  put16(tcp + 16, pseudo_sum(out, 6));
}

void complete_checksum(struct packet* packet) {
  if (!(packet->vnet.flags & kVnetNeedsChecksum)) return;
  const int start = packet->vnet.checksum_start, at = start + packet->vnet.checksum_offset;
  if (at + 2 > packet->length) return;
  const uint32_t value = ~sum(packet->bytes + start, packet->length - start, 0) & 0xffff;
  put16(packet->bytes + at, value);
  packet->vnet.flags &= (uint8_t)~kVnetNeedsChecksum;
}

int mark_congestion(struct packet* packet) {
  uint8_t* ip = packet->bytes;
  if (is_ipv6(packet)) {
    if (!(ip[1] & 0x30)) return 0;
    ip[1] |= 0x30;
    return 1;
  }
  if (!(ip[1] & 3)) return 0;
  ip[1] |= 3;
  write_ipv4_checksum(ip);
  return 1;
}
