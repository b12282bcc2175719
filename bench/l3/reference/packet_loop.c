// The least that a program can do on a packet socket: a TPACKET_V3 ring to receive from, sendmmsg to
// send with, both with the virtio_net_hdr that lets super-packets through. See loop.h for how it is told
// what to do.
//
//   packet_loop INTERFACE OWN_ADDRESS OWN_MAC PEER_ADDRESS PEER_MAC
//
// OWN_MAC is not the interface's: the kernel then takes no interest in what is for us.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "loop.h"

enum { kBatch = 64, kBlockBytes = 1 << 18, kBlocks = 64, kRetireMs = 1 };

static uint8_t own_mac[6], peer_mac[6];
static struct vnet_header vnets[kBatch];
static struct mmsghdr messages[kBatch];
static struct iovec parts[kBatch][2];
static uint8_t built[14 + kPacketBytesMax];

static void parse_mac(const char* text, uint8_t* mac) {
  unsigned v[6];
  if (sscanf(text, "%x:%x:%x:%x:%x:%x", v, v + 1, v + 2, v + 3, v + 4, v + 5) != 6) exit(2);
  for (int i = 0; i < 6; i++) mac[i] = (uint8_t)v[i];
}

static void set(int fd, int level, int name, const void* value, socklen_t bytes, const char* what) {
  if (setsockopt(fd, level, name, value, bytes) < 0) loop_die(what);
}

static int open_socket(const char* interface, int protocol) {
  const int index = (int)if_nametoindex(interface), on = 1;
  if (index == 0) loop_die(interface);
  const int fd = socket(AF_PACKET, SOCK_RAW, 0);
  if (fd < 0) loop_die("socket");
  set(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on), "PACKET_VNET_HDR");
  if (protocol == 0) {
    set(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on), "PACKET_QDISC_BYPASS");
  } else {
    const int version = TPACKET_V3;
    set(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version), "PACKET_VERSION");
    const struct tpacket_req3 ring = {.tp_block_size = kBlockBytes,
                                      .tp_block_nr = kBlocks,
                                      .tp_frame_size = 2048,
                                      .tp_frame_nr = kBlockBytes / 2048 * kBlocks,
                                      .tp_retire_blk_tov = kRetireMs};
    set(fd, SOL_PACKET, PACKET_RX_RING, &ring, sizeof(ring), "PACKET_RX_RING");
    const struct packet_mreq promiscuous = {.mr_ifindex = index, .mr_type = PACKET_MR_PROMISC};
    set(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof(promiscuous),
        "PACKET_MR_PROMISC");
    set(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on), "PACKET_IGNORE_OUTGOING");
  }
  const struct sockaddr_ll at = {
      .sll_family = AF_PACKET, .sll_protocol = htons((uint16_t)protocol), .sll_ifindex = index};
  if (bind(fd, (const struct sockaddr*)&at, sizeof(at)) < 0) loop_die("bind");
  return fd;
}

static void send_batch(int fd, int count) {
  for (int sent = 0; sent < count;) {
    const int done = sendmmsg(fd, messages + sent, (unsigned)(count - sent), 0);
    if (done > 0) {
      sent += done;
    } else if (errno == ENOBUFS || errno == EAGAIN) {
      continue;  // the device's queue is full
    } else {
      loop_die("sendmmsg");
    }
  }
}

static int prepare(int at, const struct vnet_header* vnet, uint8_t* frame, size_t bytes) {
  vnets[at] = *vnet;
  parts[at][0] = (struct iovec){&vnets[at], sizeof(vnets[at])};
  parts[at][1] = (struct iovec){frame, bytes};
  messages[at].msg_hdr = (struct msghdr){.msg_iov = parts[at], .msg_iovlen = 2};
  return at + 1;
}

static void take_block(struct tpacket_block_desc* block, int tx, int mode) {
  uint8_t* at = (uint8_t*)block + block->hdr.bh1.offset_to_first_pkt;
  uint64_t packets = 0, bytes = 0;
  int ready = 0;
  for (uint32_t i = 0; i < block->hdr.bh1.num_pkts; i++) {
    struct tpacket3_hdr* header = (struct tpacket3_hdr*)at;
    at += header->tp_next_offset;
    uint8_t* frame = (uint8_t*)header + header->tp_mac;
    if (header->tp_snaplen < 14 + 20 || memcmp(frame, own_mac, 6) != 0) continue;
    const size_t length = header->tp_snaplen - 14;
    packets++;
    bytes += length;
    if (mode != kLoopThrough || !loop_turn(frame + 14, length)) continue;
    memcpy(frame, peer_mac, 6);
    memcpy(frame + 6, own_mac, 6);
    const struct vnet_header* vnet = (const struct vnet_header*)(frame - sizeof(*vnet));
    ready = prepare(ready, vnet, frame, 14 + length);
    if (ready == kBatch) {
      send_batch(tx, ready);
      ready = 0;
    }
  }
  if (ready > 0) send_batch(tx, ready);
  if (mode != kLoopIdle) loop_count(packets, bytes);
}

static void send_built(int tx, const char* own, const char* peer, int* built_bytes) {
  if (*built_bytes != loop_bytes()) {
    *built_bytes = loop_bytes();
    struct vnet_header vnet;
    memcpy(built, peer_mac, 6);
    memcpy(built + 6, own_mac, 6);
    built[12] = 8;
    built[13] = 0;
    const size_t length = loop_packet(built + 14, &vnet, own, peer, (size_t)*built_bytes);
    if (vnet.flags) {
      vnet.checksum_start += 14;
      vnet.header_bytes += 14;
    }
    for (int i = 0; i < kBatch; i++) prepare(i, &vnet, built, 14 + length);
  }
  send_batch(tx, kBatch);
}

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  parse_mac(argv[3], own_mac);
  parse_mac(argv[5], peer_mac);
  const int rx = open_socket(argv[1], ETH_P_IP), tx = open_socket(argv[1], 0);
  uint8_t* ring =
      mmap(NULL, (size_t)kBlockBytes * kBlocks, PROT_READ | PROT_WRITE, MAP_SHARED, rx, 0);
  if (ring == MAP_FAILED) loop_die("mmap");
  loop_start();
  for (int next = 0, built_bytes = -1;;) {
    const int mode = loop_mode();
    if (mode == kLoopOut) {
      send_built(tx, argv[2], argv[4], &built_bytes);
      continue;
    }
    built_bytes = -1;
    struct tpacket_block_desc* block = (void*)(ring + (size_t)next * kBlockBytes);
    if ((__atomic_load_n(&block->hdr.bh1.block_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER) == 0) {
      struct pollfd entry = {.fd = rx, .events = POLLIN};
      poll(&entry, 1, 20);
      continue;
    }
    take_block(block, tx, mode);
    __atomic_store_n(&block->hdr.bh1.block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
    next = (next + 1) % kBlocks;
  }
}
