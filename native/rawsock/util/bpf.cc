#include "util/bpf.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace apo::bpf {
namespace {

// Not GPL, and no helper that the programs call asks for it.
constexpr char kLicense[] = "MIT";
constexpr size_t kLogBytes = 256 * 1024;
// Of the verifier's log the end says what was wrong; the rest is how it got there.
constexpr size_t kLogTail = 800;

long bpf_call(bpf_cmd command, bpf_attr& attributes) {
  return syscall(SYS_bpf, command, &attributes, sizeof attributes);
}

bpf_attr no_attributes() {
  bpf_attr attributes;
  std::memset(&attributes, 0, sizeof attributes);
  return attributes;
}

uint64_t address_of(const void* at) { return reinterpret_cast<uintptr_t>(at); }

void set_name(char (&field)[BPF_OBJ_NAME_LEN], const char* name) {
  std::strncpy(field, name, BPF_OBJ_NAME_LEN - 1);
}

Made made(long fd) {
  Made result;
  if (fd >= 0) {
    result.fd = UniqueFd(static_cast<int>(fd));
  } else {
    result.error = errno;
  }
  return result;
}

int status(long result) { return result < 0 ? errno : 0; }

}  // namespace

Assembler::Label Assembler::label() {
  labels_.push_back(kUnbound);
  return {labels_.size() - 1};
}

void Assembler::bind(Label label) { labels_[label.index] = code_.size(); }

void Assembler::add(uint8_t code, uint8_t to, uint8_t from, int16_t offset, int32_t number) {
  bpf_insn instruction{};
  instruction.code = code;
  instruction.dst_reg = to & 0xf;
  instruction.src_reg = from & 0xf;
  instruction.off = offset;
  instruction.imm = number;
  code_.push_back(instruction);
}

void Assembler::load(uint8_t size, uint8_t to, uint8_t from, int16_t offset) {
  add(static_cast<uint8_t>(BPF_LDX | BPF_MEM | size), to, from, offset, 0);
}

void Assembler::store(uint8_t size, uint8_t to, int16_t offset, uint8_t from) {
  add(static_cast<uint8_t>(BPF_STX | BPF_MEM | size), to, from, offset, 0);
}

void Assembler::store_number(uint8_t size, uint8_t to, int16_t offset, int32_t number) {
  add(static_cast<uint8_t>(BPF_ST | BPF_MEM | size), to, 0, offset, number);
}

void Assembler::alu(uint8_t operation, uint8_t to, uint8_t from) {
  add(static_cast<uint8_t>(BPF_ALU64 | BPF_X | operation), to, from, 0, 0);
}

void Assembler::alu_number(uint8_t operation, uint8_t to, int32_t number) {
  add(static_cast<uint8_t>(BPF_ALU64 | BPF_K | operation), to, 0, 0, number);
}

void Assembler::network_to_host16(uint8_t at) { add(BPF_ALU | BPF_END | BPF_TO_BE, at, 0, 0, 16); }

void Assembler::load_number64(uint8_t to, uint64_t number) {
  add(BPF_LD | BPF_IMM | BPF_DW, to, 0, 0, static_cast<int32_t>(static_cast<uint32_t>(number)));
  add(0, 0, 0, 0, static_cast<int32_t>(static_cast<uint32_t>(number >> 32)));
}

void Assembler::load_map(uint8_t to, int map) {
  add(BPF_LD | BPF_IMM | BPF_DW, to, BPF_PSEUDO_MAP_FD, 0, map);
  add(0, 0, 0, 0, 0);
}

void Assembler::jump(Label label) {
  jumps_.push_back({code_.size(), label.index});
  add(BPF_JMP | BPF_JA, 0, 0, 0, 0);
}

void Assembler::jump_if(uint8_t operation, uint8_t left, uint8_t right, Label label) {
  jumps_.push_back({code_.size(), label.index});
  add(static_cast<uint8_t>(BPF_JMP | BPF_X | operation), left, right, 0, 0);
}

void Assembler::jump_if_number(uint8_t operation, uint8_t left, int32_t right, Label label) {
  jumps_.push_back({code_.size(), label.index});
  add(static_cast<uint8_t>(BPF_JMP | BPF_K | operation), left, 0, 0, right);
}

void Assembler::call(int32_t helper) { add(BPF_JMP | BPF_CALL, 0, 0, 0, helper); }

void Assembler::exit() { add(BPF_JMP | BPF_EXIT, 0, 0, 0, 0); }

std::vector<bpf_insn> Assembler::finish() const {
  std::vector<bpf_insn> code = code_;
  for (const Jump& jump : jumps_) {
    const size_t target = labels_[jump.label];
    if (target == kUnbound) return {};
    const auto distance = static_cast<int64_t>(target) - static_cast<int64_t>(jump.from) - 1;
    if (distance < INT16_MIN || distance > INT16_MAX) return {};
    code[jump.from].off = static_cast<int16_t>(distance);
  }
  return code;
}

Made create_map(const MapShape& shape, const char* name) {
  bpf_attr attributes = no_attributes();
  attributes.map_type = shape.type;
  attributes.key_size = shape.key_bytes;
  attributes.value_size = shape.value_bytes;
  attributes.max_entries = shape.entries;
  set_name(attributes.map_name, name);
  return made(bpf_call(BPF_MAP_CREATE, attributes));
}

Made load_xdp_program(std::span<const bpf_insn> code, const char* name) {
  bpf_attr attributes = no_attributes();
  attributes.prog_type = BPF_PROG_TYPE_XDP;
  attributes.expected_attach_type = BPF_XDP;
  attributes.insn_cnt = static_cast<uint32_t>(code.size());
  attributes.insns = address_of(code.data());
  attributes.license = address_of(kLicense);
  set_name(attributes.prog_name, name);
  Made first = made(bpf_call(BPF_PROG_LOAD, attributes));
  if (first.fd || first.error == EPERM) return first;
  // Once more, for the verifier's words: asking for them always would make every load slow.
  std::vector<char> log(kLogBytes);
  attributes.log_level = 1;
  attributes.log_buf = address_of(log.data());
  attributes.log_size = static_cast<uint32_t>(log.size());
  Made second = made(bpf_call(BPF_PROG_LOAD, attributes));
  if (second.fd) return second;
  const size_t length = strnlen(log.data(), log.size());
  const size_t from = length > kLogTail ? length - kLogTail : 0;
  second.words.assign(log.data() + from, length - from);
  return second;
}

int update_map(int map, const void* key, const void* value) {
  bpf_attr attributes = no_attributes();
  attributes.map_fd = static_cast<uint32_t>(map);
  attributes.key = address_of(key);
  attributes.value = address_of(value);
  attributes.flags = BPF_ANY;
  return status(bpf_call(BPF_MAP_UPDATE_ELEM, attributes));
}

int lookup_map(int map, const void* key, void* value) {
  bpf_attr attributes = no_attributes();
  attributes.map_fd = static_cast<uint32_t>(map);
  attributes.key = address_of(key);
  attributes.value = address_of(value);
  return status(bpf_call(BPF_MAP_LOOKUP_ELEM, attributes));
}

int delete_from_map(int map, const void* key) {
  bpf_attr attributes = no_attributes();
  attributes.map_fd = static_cast<uint32_t>(map);
  attributes.key = address_of(key);
  return status(bpf_call(BPF_MAP_DELETE_ELEM, attributes));
}

Made attach_xdp(int program, uint32_t interface_index, uint32_t flags) {
  bpf_attr attributes = no_attributes();
  attributes.link_create.prog_fd = static_cast<uint32_t>(program);
  attributes.link_create.target_ifindex = interface_index;
  attributes.link_create.attach_type = BPF_XDP;
  attributes.link_create.flags = flags;
  return made(bpf_call(BPF_LINK_CREATE, attributes));
}

bool run_xdp_program(int program, std::span<const uint8_t> frame, uint32_t* result) {
  bpf_attr attributes = no_attributes();
  attributes.test.prog_fd = static_cast<uint32_t>(program);
  attributes.test.data_in = address_of(frame.data());
  attributes.test.data_size_in = static_cast<uint32_t>(frame.size());
  attributes.test.repeat = 1;
  if (bpf_call(BPF_PROG_TEST_RUN, attributes) < 0) return false;
  *result = attributes.test.retval;
  return true;
}

}  // namespace apo::bpf
