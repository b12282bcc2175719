// The least that a program can do on an AF_XDP socket: one queue, its rings, an XDP program that takes our
// one UDP port. See loop.h for how it is told what to do.
//
//   xdp_loop INTERFACE OWN_ADDRESS OWN_MAC PEER_ADDRESS PEER_MAC copy|zerocopy
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "../../lib/tools/bpf.h"
#include "loop.h"

enum { kFrames = 4096, kFrameBytes = 2048, kRing = 2048, kBatch = 64, kXdpAttach = 37 };

struct ring {
  uint32_t *producer, *consumer, *flags;
  void* entries;
};

static uint8_t *area, own_mac[6], peer_mac[6];
static struct ring fill, completion, rx, tx;

static void parse_mac(const char* text, uint8_t* mac) {
  unsigned v[6];
  if (sscanf(text, "%x:%x:%x:%x:%x:%x", v, v + 1, v + 2, v + 3, v + 4, v + 5) != 6) exit(2);
  for (int i = 0; i < 6; i++) mac[i] = (uint8_t)v[i];
}

static void set(int fd, int name, const void* value, socklen_t bytes, const char* what) {
  if (setsockopt(fd, SOL_XDP, name, value, bytes) < 0) loop_die(what);
}

static struct ring map_ring(int fd, const struct xdp_ring_offset* at, size_t entry, off_t page) {
  uint8_t* memory = mmap(NULL, at->desc + kRing * entry, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_POPULATE, fd, page);
  if (memory == MAP_FAILED) loop_die("mmap");
  return (struct ring){(void*)(memory + at->producer), (void*)(memory + at->consumer),
                       (void*)(memory + at->flags), memory + at->desc};
}

static int open_socket(int index, int zero_copy) {
  const int fd = socket(AF_XDP, SOCK_RAW, 0), size = kRing;
  if (fd < 0) loop_die("socket(AF_XDP)");
  area =
      mmap(NULL, kFrames * kFrameBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (area == MAP_FAILED) loop_die("mmap");
  const struct xdp_umem_reg umem = {
      .addr = (uint64_t)(uintptr_t)area, .len = kFrames * kFrameBytes, .chunk_size = kFrameBytes};
  set(fd, XDP_UMEM_REG, &umem, sizeof(umem), "XDP_UMEM_REG");
  set(fd, XDP_UMEM_FILL_RING, &size, sizeof(size), "XDP_UMEM_FILL_RING");
  set(fd, XDP_UMEM_COMPLETION_RING, &size, sizeof(size), "XDP_UMEM_COMPLETION_RING");
  set(fd, XDP_RX_RING, &size, sizeof(size), "XDP_RX_RING");
  set(fd, XDP_TX_RING, &size, sizeof(size), "XDP_TX_RING");
  struct xdp_mmap_offsets at;
  socklen_t bytes = sizeof(at);
  if (getsockopt(fd, SOL_XDP, XDP_MMAP_OFFSETS, &at, &bytes) < 0) loop_die("XDP_MMAP_OFFSETS");
  fill = map_ring(fd, &at.fr, sizeof(uint64_t), (off_t)XDP_UMEM_PGOFF_FILL_RING);
  completion = map_ring(fd, &at.cr, sizeof(uint64_t), (off_t)XDP_UMEM_PGOFF_COMPLETION_RING);
  rx = map_ring(fd, &at.rx, sizeof(struct xdp_desc), XDP_PGOFF_RX_RING);
  tx = map_ring(fd, &at.tx, sizeof(struct xdp_desc), XDP_PGOFF_TX_RING);
  const struct sockaddr_xdp to = {
      .sxdp_family = AF_XDP,
      .sxdp_ifindex = (uint32_t)index,
      .sxdp_flags = (uint16_t)(XDP_USE_NEED_WAKEUP | (zero_copy ? XDP_ZEROCOPY : XDP_COPY))};
  if (bind(fd, (const struct sockaddr*)&to, sizeof(to)) < 0) loop_die("bind(AF_XDP)");
  return fd;
}

// UDP over plain IPv4 to our port goes to the socket, all else to the kernel.
static int load_program(int map) {
  enum { kPass = 18 };
#define TO_PASS(at) ((short)(kPass - (at)-1))
  const struct bpf_insn program[] = {
      /*  0 */ LOAD(BPF_W, BPF_REG_2, BPF_REG_1, offsetof(struct xdp_md, data)),
      /*  1 */ LOAD(BPF_W, BPF_REG_3, BPF_REG_1, offsetof(struct xdp_md, data_end)),
      /*  2 */ MOV_REG(BPF_REG_4, BPF_REG_2),
      /*  3 */ ADD_IMM(BPF_REG_4, 14 + 20 + 8),
      /*  4 */ JUMP_REG(BPF_JGT, BPF_REG_4, BPF_REG_3, TO_PASS(4)),
      /*  5 */ LOAD(BPF_W, BPF_REG_5, BPF_REG_2, 12),
      /*  6 */ INSN(BPF_ALU64 | BPF_AND | BPF_K, BPF_REG_5, 0, 0, 0x00ffffff),
      /*  7 */ JUMP_IMM(BPF_JNE, BPF_REG_5, 0x00450008, TO_PASS(7)),
      /*  8 */ LOAD(BPF_B, BPF_REG_5, BPF_REG_2, 23),
      /*  9 */ JUMP_IMM(BPF_JNE, BPF_REG_5, 17, TO_PASS(9)),
      /* 10 */ LOAD(BPF_H, BPF_REG_5, BPF_REG_2, 36),
      /* 11 */ JUMP_IMM(BPF_JNE, BPF_REG_5, htons(kOwnPort), TO_PASS(11)),
      /* 12 */ LOAD(BPF_W, BPF_REG_2, BPF_REG_1, offsetof(struct xdp_md, rx_queue_index)),
      /* 13 */ LOAD_MAP(BPF_REG_1, map),
      /* 15 */ MOV_IMM(BPF_REG_3, XDP_PASS),
      /* 16 */ CALL(BPF_FUNC_redirect_map),
      /* 17 */ EXIT(),
      /* 18 */ MOV_IMM(BPF_REG_0, XDP_PASS),
      /* 19 */ EXIT(),
  };
#undef TO_PASS
  static char log[65536];
  union bpf_attr attr = {0};
  attr.prog_type = BPF_PROG_TYPE_XDP;
  attr.insns = (uint64_t)(uintptr_t)program;
  attr.insn_cnt = sizeof(program) / sizeof(program[0]);
  attr.license = (uint64_t)(uintptr_t) "MIT";
  attr.log_level = 1;
  attr.log_buf = (uint64_t)(uintptr_t)log;
  attr.log_size = sizeof(log);
  const int fd = bpf(BPF_PROG_LOAD, &attr);
  if (fd < 0) fprintf(stderr, "%.1000s\n", log);
  if (fd < 0) loop_die("BPF_PROG_LOAD");
  return fd;
}

// The link's descriptor is never closed: the program stays as long as this process.
static void attach(int index, int socket) {
  union bpf_attr attr = {0};
  attr.map_type = BPF_MAP_TYPE_XSKMAP;
  attr.key_size = attr.value_size = sizeof(uint32_t);
  attr.max_entries = 1;
  const int map = bpf(BPF_MAP_CREATE, &attr);
  if (map < 0) loop_die("BPF_MAP_CREATE");
  const uint32_t queue = 0, value = (uint32_t)socket;
  memset(&attr, 0, sizeof(attr));
  attr.map_fd = (uint32_t)map;
  attr.key = (uint64_t)(uintptr_t)&queue;
  attr.value = (uint64_t)(uintptr_t)&value;
  if (bpf(BPF_MAP_UPDATE_ELEM, &attr) < 0) loop_die("BPF_MAP_UPDATE_ELEM");
  const int program = load_program(map);
  memset(&attr, 0, sizeof(attr));
  attr.link_create.prog_fd = (uint32_t)program;
  attr.link_create.target_ifindex = (uint32_t)index;
  attr.link_create.attach_type = kXdpAttach;
  attr.link_create.flags = XDP_FLAGS_DRV_MODE;
  if (bpf(BPF_LINK_CREATE, &attr) < 0) loop_die("BPF_LINK_CREATE(XDP)");
}

static uint32_t load(const uint32_t* at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
static void store(uint32_t* at, uint32_t value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }

static void give_back(uint64_t frame) {
  const uint32_t at = *fill.producer;
  ((uint64_t*)fill.entries)[at % kRing] = frame;
  store(fill.producer, at + 1);
}

// Frames that have been sent; those of the receiving half go back to be filled.
static uint32_t reap(uint32_t* under_way) {
  const uint32_t end = load(completion.producer);
  uint32_t at = *completion.consumer;
  const uint32_t done = end - at;
  for (; at != end; at++) {
    const uint64_t frame = ((uint64_t*)completion.entries)[at % kRing];
    if (frame < (uint64_t)kFrames / 2 * kFrameBytes) give_back(frame - frame % kFrameBytes);
  }
  store(completion.consumer, at);
  *under_way -= done;
  return done;
}

static void kick(int fd) {
  if (sendto(fd, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0 && errno != EAGAIN && errno != EBUSY &&
      errno != ENOBUFS) {
    loop_die("sendto");
  }
}

static void push(uint64_t frame, uint32_t bytes) {
  const uint32_t at = *tx.producer;
  ((struct xdp_desc*)tx.entries)[at % kRing] = (struct xdp_desc){.addr = frame, .len = bytes};
  store(tx.producer, at + 1);
}

static void receive(int fd, int mode, uint32_t* under_way) {
  uint32_t at = *rx.consumer;
  const uint32_t end = load(rx.producer), most = at + kBatch;
  uint64_t packets = 0, bytes = 0;
  for (; at != end && at != most; at++) {
    const struct xdp_desc got = ((struct xdp_desc*)rx.entries)[at % kRing];
    uint8_t* frame = area + got.addr;
    packets++;
    bytes += got.len - 14;
    if (mode == kLoopThrough && *under_way < kRing && loop_turn(frame + 14, got.len - 14)) {
      memcpy(frame, peer_mac, 6);
      memcpy(frame + 6, own_mac, 6);
      push(got.addr, got.len);
      ++*under_way;
    } else {
      give_back(got.addr - got.addr % kFrameBytes);
    }
  }
  store(rx.consumer, at);
  if (mode != kLoopIdle) loop_count(packets, bytes);
  if (*under_way > 0) kick(fd);
  reap(under_way);
  if (packets == 0) {
    struct pollfd entry = {.fd = fd, .events = POLLIN};
    poll(&entry, 1, 20);
  }
}

int main(int argc, char** argv) {
  if (argc != 7) return 2;
  const int index = (int)if_nametoindex(argv[1]);
  if (index == 0) loop_die(argv[1]);
  parse_mac(argv[3], own_mac);
  parse_mac(argv[5], peer_mac);
  const struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
  setrlimit(RLIMIT_MEMLOCK, &all);
  const int fd = open_socket(index, strcmp(argv[6], "zerocopy") == 0);
  for (uint64_t i = 0; i < kRing; i++) give_back(i * kFrameBytes);
  attach(index, fd);
  loop_start();
  uint32_t under_way = 0, length = 0, next = 0;
  for (int built = -1;;) {
    const int mode = loop_mode();
    if (mode != kLoopOut) {
      built = -1;
      receive(fd, mode, &under_way);
      continue;
    }
    if (built != loop_bytes()) {
      built = loop_bytes();
      for (size_t i = kFrames / 2; i < kFrames; i++) {
        uint8_t* frame = area + i * kFrameBytes;
        struct vnet_header unused;
        memcpy(frame, peer_mac, 6);
        memcpy(frame + 6, own_mac, 6);
        frame[12] = 8;
        frame[13] = 0;
        length = 14 + (uint32_t)loop_packet(frame + 14, &unused, argv[2], argv[4], (size_t)built);
      }
    }
    for (; under_way < kRing; next++, under_way++) {
      push((uint64_t)(kFrames / 2 + next % kRing) * kFrameBytes, length);
    }
    kick(fd);
    reap(&under_way);
  }
}
