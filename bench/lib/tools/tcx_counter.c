// See tcx_counter.h.
#define _GNU_SOURCE
#include "tcx_counter.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "bpf.h"

// linux/bpf.h has these from 6.6 on; the machine's headers may be older than its kernel.
enum { kTcxIngress = 46, kTcxNext = -1, kTcxDrop = 2 };

#define CTX(field) ((short)offsetof(struct __sk_buff, field))

static int create_map(int count) {
  union bpf_attr attr = {0};
  attr.map_type = BPF_MAP_TYPE_ARRAY;
  attr.key_size = sizeof(uint32_t);
  attr.value_size = sizeof(struct tcx_port);
  attr.max_entries = (uint32_t)count;
  attr.map_flags = BPF_F_MMAPABLE;
  return bpf(BPF_MAP_CREATE, &attr);
}

// Registers: r6 the context, r2/r3 the packet's bounds, r0 the port's entry.
static int load_program(int map, int link, int first_port, int count, char* log, int log_size) {
  enum { kPass = 38 };  // index of the "let it through" exit, the target of every early jump
#define TO_PASS(at) ((short)(kPass - (at)-1))
  const struct bpf_insn program[] = {
      /*  0 */ MOV_REG(BPF_REG_6, BPF_REG_1),
      /*  1 */ LOAD(BPF_W, BPF_REG_2, BPF_REG_6, CTX(data)),
      /*  2 */ LOAD(BPF_W, BPF_REG_3, BPF_REG_6, CTX(data_end)),
      /*  3 */ MOV_REG(BPF_REG_4, BPF_REG_2),
      /*  4 */ ADD_IMM(BPF_REG_4, link + 20 + 8),
      /*  5 */ JUMP_REG(BPF_JGT, BPF_REG_4, BPF_REG_3, TO_PASS(5)),
      /*  6 */ LOAD(BPF_W, BPF_REG_5, BPF_REG_6, CTX(protocol)),
      /*  7 */ JUMP_IMM(BPF_JNE, BPF_REG_5, htons(0x0800), TO_PASS(7)),
      /*  8 */ LOAD(BPF_B, BPF_REG_5, BPF_REG_2, (short)link),
      /*  9 */ JUMP_IMM(BPF_JNE, BPF_REG_5, 0x45, TO_PASS(9)),
      /* 10 */ LOAD(BPF_H, BPF_REG_5, BPF_REG_2, (short)(link + 6)),
      /* 11 */ INSN(BPF_ALU64 | BPF_AND | BPF_K, BPF_REG_5, 0, 0, htons(0x3fff)),
      /* 12 */ JUMP_IMM(BPF_JNE, BPF_REG_5, 0, TO_PASS(12)),
      /* 13 */ LOAD(BPF_B, BPF_REG_5, BPF_REG_2, (short)(link + 9)),
      /* 14 */ JUMP_IMM(BPF_JNE, BPF_REG_5, 17, TO_PASS(14)),
      /* 15 */ LOAD(BPF_H, BPF_REG_5, BPF_REG_2, (short)(link + 22)),
      /* 16 */ INSN(BPF_ALU | BPF_END | BPF_TO_BE, BPF_REG_5, 0, 0, 16),
      /* 17 */ ADD_IMM(BPF_REG_5, -first_port),
      /* 18 */ JUMP_IMM(BPF_JGE, BPF_REG_5, count, TO_PASS(18)),
      /* 19 */ STORE(BPF_W, BPF_REG_10, BPF_REG_5, -4),
      /* 20 */ MOV_REG(BPF_REG_2, BPF_REG_10),
      /* 21 */ ADD_IMM(BPF_REG_2, -4),
      /* 22 */ LOAD_MAP(BPF_REG_1, map),
      /* 24 */ CALL(BPF_FUNC_map_lookup_elem),
      /* 25 */ JUMP_IMM(BPF_JEQ, BPF_REG_0, 0, TO_PASS(25)),
      /* 26 */ LOAD(BPF_W, BPF_REG_1, BPF_REG_6, CTX(gso_segs)),
      /* 27 */ JUMP_IMM(BPF_JNE, BPF_REG_1, 0, 1),
      /* 28 */ MOV_IMM(BPF_REG_1, 1),
      /* 29 */ ATOMIC_ADD(BPF_REG_0, BPF_REG_1, offsetof(struct tcx_port, packets)),
      /* 30 */ MOV_IMM(BPF_REG_1, 1),
      /* 31 */ ATOMIC_ADD(BPF_REG_0, BPF_REG_1, offsetof(struct tcx_port, skbs)),
      /* 32 */ LOAD(BPF_W, BPF_REG_1, BPF_REG_6, CTX(len)),
      /* 33 */ ATOMIC_ADD(BPF_REG_0, BPF_REG_1, offsetof(struct tcx_port, bytes)),
      /* 34 */ LOAD(BPF_DW, BPF_REG_1, BPF_REG_0, offsetof(struct tcx_port, pass)),
      /* 35 */ JUMP_IMM(BPF_JNE, BPF_REG_1, 0, TO_PASS(35)),
      /* 36 */ MOV_IMM(BPF_REG_0, kTcxDrop),
      /* 37 */ EXIT(),
      /* 38 */ MOV_IMM(BPF_REG_0, kTcxNext),
      /* 39 */ EXIT(),
  };
#undef TO_PASS
  union bpf_attr attr = {0};
  attr.prog_type = BPF_PROG_TYPE_SCHED_CLS;
  attr.insns = (uint64_t)(uintptr_t)program;
  attr.insn_cnt = sizeof(program) / sizeof(program[0]);
  attr.license = (uint64_t)(uintptr_t) "MIT";
  attr.log_level = 1;
  attr.log_buf = (uint64_t)(uintptr_t)log;
  attr.log_size = (uint32_t)log_size;
  return bpf(BPF_PROG_LOAD, &attr);
}

struct tcx_port* tcx_counter_start(const char* interface, int link_bytes, int first_port, int count,
                                   char* error, int error_size) {
  static char log[65536];
  const unsigned index = if_nametoindex(interface);
  if (index == 0) {
    snprintf(error, (size_t)error_size, "no interface %s: %s", interface, strerror(errno));
    return NULL;
  }
  const int map = create_map(count);
  if (map < 0) {
    snprintf(error, (size_t)error_size, "BPF map refused: %s", strerror(errno));
    return NULL;
  }
  const int program = load_program(map, link_bytes, first_port, count, log, sizeof(log));
  if (program < 0) {
    snprintf(error, (size_t)error_size, "BPF program refused: %s; %.300s", strerror(errno), log);
    return NULL;
  }
  union bpf_attr attr = {0};
  attr.link_create.prog_fd = (uint32_t)program;
  attr.link_create.target_ifindex = index;
  attr.link_create.attach_type = kTcxIngress;
  // The link's descriptor is kept open, and never closed: the program stays as long as this
  // process.
  if (bpf(BPF_LINK_CREATE, &attr) < 0) {
    snprintf(error, (size_t)error_size, "tcx link refused (needs Linux 6.6): %s", strerror(errno));
    return NULL;
  }
  const size_t bytes = sizeof(struct tcx_port) * (size_t)count;
  void* ports = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, map, 0);
  if (ports == MAP_FAILED) {
    snprintf(error, (size_t)error_size, "cannot map the counters: %s", strerror(errno));
    return NULL;
  }
  return ports;
}
