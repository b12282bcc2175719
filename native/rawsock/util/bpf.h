// eBPF by bare bpf() system calls: maps, programs, XDP links, and an assembler whose jumps have
// labels. No library and no compiler is needed on the machine that runs it.
//
// Knows nothing of what a program does; links/xdp_program.cc writes one.
#pragma once

#include <linux/bpf.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "util/unique_fd.h"

namespace apo::bpf {

// Writes instructions in order. Registers are numbers: 0 result, 1-5 arguments (lost by a call),
// 6-9 kept, 10 the frame's end.
class Assembler {
 public:
  struct Label {
    size_t index;
  };

  [[nodiscard]] Label label();
  void bind(Label label);

  // `size` is BPF_B, BPF_H, BPF_W or BPF_DW.
  void load(uint8_t size, uint8_t to, uint8_t from, int16_t offset);
  void store(uint8_t size, uint8_t to, int16_t offset, uint8_t from);
  void store_number(uint8_t size, uint8_t to, int16_t offset, int32_t number);
  // `operation` is BPF_MOV, BPF_ADD, BPF_AND, BPF_LSH and the like, on 64 bits.
  void alu(uint8_t operation, uint8_t to, uint8_t from);
  void alu_number(uint8_t operation, uint8_t to, int32_t number);
  // The low 16 bits from network order to the machine's.
  void network_to_host16(uint8_t at);
  void load_number64(uint8_t to, uint64_t number);
  void load_map(uint8_t to, int map);
  void jump(Label label);
  // `operation` is BPF_JEQ, BPF_JNE, BPF_JGT and the like, on 64 bits without sign.
  void jump_if(uint8_t operation, uint8_t left, uint8_t right, Label label);
  void jump_if_number(uint8_t operation, uint8_t left, int32_t right, Label label);
  void call(int32_t helper);
  void exit();

  // The program; empty when a label was used but not bound, or is too far away.
  [[nodiscard]] std::vector<bpf_insn> finish() const;

 private:
  static constexpr size_t kUnbound = SIZE_MAX;
  struct Jump {
    size_t from;
    size_t label;
  };
  void add(uint8_t code, uint8_t to, uint8_t from, int16_t offset, int32_t number);

  std::vector<bpf_insn> code_;
  std::vector<size_t> labels_;
  std::vector<Jump> jumps_;
};

struct MapShape {
  bpf_map_type type;
  uint32_t key_bytes;
  uint32_t value_bytes;
  uint32_t entries;
};

// An fd, or errno and what refused it (the verifier's last words, for a program).
struct Made {
  UniqueFd fd;
  int error = 0;
  std::string words;
};

// `name` is at most 15 characters; `bpftool` and `ip link` show it.
[[nodiscard]] Made create_map(const MapShape& shape, const char* name);
[[nodiscard]] Made load_xdp_program(std::span<const bpf_insn> code, const char* name);

// 0 or an errno; the key and the value have the map's sizes.
[[nodiscard]] int update_map(int map, const void* key, const void* value);
[[nodiscard]] int lookup_map(int map, const void* key, void* value);
[[nodiscard]] int delete_from_map(int map, const void* key);

// Attaches a program to an interface for as long as the descriptor lives: the kernel detaches it
// when the last copy is closed, also by the death of the process. `flags` is XDP_FLAGS_DRV_MODE or
// XDP_FLAGS_SKB_MODE.
[[nodiscard]] Made attach_xdp(int program, uint32_t interface_index, uint32_t flags);

// Runs a program over one frame (BPF_PROG_TEST_RUN, RX queue 0 of the loopback device). False: the
// kernel refused, `errno` says why.
[[nodiscard]] bool run_xdp_program(int program, std::span<const uint8_t> frame, uint32_t* result);

}  // namespace apo::bpf
