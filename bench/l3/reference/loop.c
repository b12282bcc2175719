// See loop.h.
#define _GNU_SOURCE
#include "loop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static atomic_int mode, wanted_bytes;
static atomic_ullong packets, bytes;

int loop_mode(void) { return atomic_load_explicit(&mode, memory_order_relaxed); }
int loop_bytes(void) { return atomic_load_explicit(&wanted_bytes, memory_order_relaxed); }

// One thread counts: no atomic addition is needed.
void loop_count(uint64_t more_packets, uint64_t more_bytes) {
  atomic_store_explicit(&packets,
                        atomic_load_explicit(&packets, memory_order_relaxed) + more_packets,
                        memory_order_relaxed);
  atomic_store_explicit(&bytes, atomic_load_explicit(&bytes, memory_order_relaxed) + more_bytes,
                        memory_order_relaxed);
}

void loop_die(const char* what) {
  fprintf(stderr, "%s: %s\n", what, strerror(errno));
  exit(1);
}

void loop_say(uint64_t packets_now, uint64_t bytes_now) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  const uint64_t us = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
  printf("{\"packets\":%llu,\"bytes\":%llu,\"us\":%llu}\n", (unsigned long long)packets_now,
         (unsigned long long)bytes_now, (unsigned long long)us);
  fflush(stdout);
}

static void* listen_to_stdin(void* unused) {
  (void)unused;
  static const char* names[] = {"idle", "in", "out", "through"};
  char line[64], word[16];
  while (fgets(line, sizeof(line), stdin)) {
    int size = 0;
    if (sscanf(line, "%15s %d", word, &size) < 1) continue;
    for (int i = 0; i < 4; i++) {
      if (strcmp(word, names[i]) != 0) continue;
      atomic_store(&wanted_bytes, size);
      atomic_store(&mode, i);
    }
    loop_say(atomic_load(&packets), atomic_load(&bytes));
  }
  exit(0);
}

void loop_start(void) {
  pthread_t thread;
  printf("{\"ready\":true}\n");
  fflush(stdout);
  if (pthread_create(&thread, NULL, listen_to_stdin, NULL) != 0) loop_die("pthread_create");
}

static uint32_t sum_words(uint32_t sum, const uint8_t* at, size_t length) {
  for (; length > 1; at += 2, length -= 2) sum += (uint32_t)(at[0] << 8 | at[1]);
  return length ? sum + (uint32_t)(at[0] << 8) : sum;
}

static uint16_t folded(uint32_t sum) {
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return (uint16_t)sum;
}

static void put16(uint8_t* at, size_t value) {
  at[0] = (uint8_t)(value >> 8);
  at[1] = (uint8_t)value;
}

size_t loop_packet(uint8_t* out, struct vnet_header* vnet, const char* own, const char* peer,
                   size_t length) {
  const int super = length > 1500;
  if (super) length = 28 + 44 * kSegmentBytes;
  memset(vnet, 0, sizeof(*vnet));
  memset(out, 0, length);
  out[0] = 0x45;
  put16(out + 2, length);
  out[6] = 0x40;  // don't fragment
  out[8] = 64;
  out[9] = 17;
  inet_pton(AF_INET, own, out + 12);
  inet_pton(AF_INET, peer, out + 16);
  put16(out + 10, (uint16_t)~folded(sum_words(0, out, 20)));
  uint8_t* udp = out + 20;
  put16(udp, kOwnPort);
  put16(udp + 2, kPeerPort);
  put16(udp + 4, length - 20);
  const uint32_t pseudo = sum_words(17 + (uint32_t)length - 20, out + 12, 8);
  if (super) {
    put16(udp + 6, folded(pseudo));
    vnet->flags = 1;     // VIRTIO_NET_HDR_F_NEEDS_CSUM
    vnet->gso_type = 5;  // VIRTIO_NET_HDR_GSO_UDP_L4
    vnet->header_bytes = 28;
    vnet->gso_bytes = kSegmentBytes;
    vnet->checksum_start = 20;
    vnet->checksum_offset = 6;
  } else {
    put16(udp + 6, (uint16_t)~folded(sum_words(pseudo, udp, length - 20)));
  }
  return length;
}

int loop_turn(uint8_t* ip, size_t length) {
  uint8_t kept[4];
  if (length < 28 || ip[0] != 0x45 || ip[9] != 17) return 0;
  memcpy(kept, ip + 12, 4);
  memcpy(ip + 12, ip + 16, 4);
  memcpy(ip + 16, kept, 4);
  memcpy(kept, ip + 20, 2);
  memcpy(ip + 20, ip + 22, 2);
  memcpy(ip + 22, kept, 2);
  return 1;
}
