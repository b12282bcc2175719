#include "links/packet_filter.h"

#include <initializer_list>

namespace apo {
namespace {

constexpr uint32_t kWhole = 0x40000;  // more than any packet has

constexpr uint16_t kLoadWord = BPF_LD | BPF_W | BPF_ABS;
constexpr uint16_t kLoadHalf = BPF_LD | BPF_H | BPF_ABS;
constexpr uint16_t kLoadByte = BPF_LD | BPF_B | BPF_ABS;
constexpr uint16_t kLoadConstant = BPF_LD | BPF_IMM;
constexpr uint16_t kLoadSaved = BPF_LD | BPF_MEM;
constexpr uint16_t kIndexedHalf = BPF_LD | BPF_H | BPF_IND;
constexpr uint16_t kIndexSaved = BPF_LDX | BPF_MEM;
constexpr uint16_t kIndexConstant = BPF_LDX | BPF_IMM;
constexpr uint16_t kIndexHeader = BPF_LDX | BPF_B | BPF_MSH;
constexpr uint16_t kSave = BPF_ST;
constexpr uint16_t kToIndex = BPF_MISC | BPF_TAX;
constexpr uint16_t kXorIndex = BPF_ALU | BPF_XOR | BPF_X;
constexpr uint16_t kAddIndex = BPF_ALU | BPF_ADD | BPF_X;
constexpr uint16_t kShiftIndex = BPF_ALU | BPF_RSH | BPF_X;
constexpr uint16_t kShift = BPF_ALU | BPF_RSH | BPF_K;
constexpr uint16_t kMultiply = BPF_ALU | BPF_MUL | BPF_K;
constexpr uint16_t kModulo = BPF_ALU | BPF_MOD | BPF_K;
constexpr uint16_t kAnd = BPF_ALU | BPF_AND | BPF_K;
constexpr uint16_t kEquals = BPF_JMP | BPF_JEQ | BPF_K;
constexpr uint16_t kAtLeast = BPF_JMP | BPF_JGE | BPF_K;
constexpr uint16_t kHasBits = BPF_JMP | BPF_JSET | BPF_K;
constexpr uint16_t kJump = BPF_JMP | BPF_JA;
constexpr uint16_t kReturn = BPF_RET | BPF_K;
constexpr uint16_t kReturnLoaded = BPF_RET | BPF_A;

constexpr uint32_t kAncillary = static_cast<uint32_t>(SKF_AD_OFF);

// Instructions with jumps to places that are still to come.
class Assembler {
 public:
  using Label = size_t;

  Label label() {
    places_.push_back(0);
    return places_.size() - 1;
  }
  void place(Label label) { places_[label] = program_.size(); }
  void add(uint16_t code, uint32_t value = 0) { program_.push_back({code, 0, 0, value}); }
  // Goes on when it does not hold.
  void jump_if(uint16_t code, uint32_t value, Label to) {
    jumps_.push_back({program_.size(), to, true});
    program_.push_back({code, 0, 0, value});
  }
  void jump_unless(uint16_t code, uint32_t value, Label to) {
    jumps_.push_back({program_.size(), to, false});
    program_.push_back({code, 0, 0, value});
  }
  void jump(Label to) { jump_if(kJump, 0, to); }

  ClassicProgram finish() {
    for (const Jump& jump : jumps_) {
      sock_filter& at = program_[jump.at];
      const size_t distance = places_[jump.to] - jump.at - 1;
      if (at.code == kJump) {
        at.k = static_cast<uint32_t>(distance);
      } else {
        (jump.when ? at.jt : at.jf) = static_cast<uint8_t>(distance);
      }
    }
    return program_;
  }

 private:
  struct Jump {
    size_t at;
    Label to;
    bool when;
  };
  ClassicProgram program_;
  std::vector<Jump> jumps_;
  std::vector<size_t> places_;
};

// Memory words of the fan-out program.
constexpr uint32_t kHash = 0;
constexpr uint32_t kPort = 1;

void fold_word(Assembler& code, uint32_t offset) {
  code.add(kLoadWord, offset);
  code.add(kIndexSaved, kHash);
  code.add(kXorIndex);
  code.add(kSave, kHash);
}

// The two ports, at X and two bytes on. The addresses are stirred first, or ports that count up with
// them would cancel them out.
void fold_ports(Assembler& code, uint32_t key) {
  code.add(kIndexedHalf, 0);
  code.add(kSave, kPort);
  code.add(kIndexedHalf, 2);
  code.add(kIndexSaved, kPort);
  code.add(kXorIndex);
  code.add(kSave, kPort);
  code.add(kLoadSaved, kHash);
  code.add(kMultiply, key | 1);
  code.add(kIndexSaved, kPort);
  code.add(kXorIndex);
  code.add(kSave, kHash);
}

}  // namespace

ClassicProgram closed_filter() { return {{kReturn, 0, 0, 0}}; }

ClassicProgram frame_filter(const MacAddress& own) {
  Assembler code;
  const auto untagged = code.label();
  const auto wanted = code.label();
  const auto accept = code.label();
  const auto refuse = code.label();
  code.add(kLoadByte, kAncillary + SKF_AD_VLAN_TAG_PRESENT);
  code.jump_if(kEquals, 0, untagged);
  code.add(kLoadHalf, kAncillary + SKF_AD_VLAN_TAG);
  code.jump_if(kHasBits, 0xfff, refuse);
  code.place(untagged);
  code.add(kLoadHalf, ethernet_field::kType);
  code.jump_if(kEquals, ethertype::kIpv4, wanted);
  code.jump_if(kEquals, ethertype::kIpv6, wanted);
  code.jump_unless(kEquals, ethertype::kArp, refuse);
  code.place(wanted);
  code.add(kLoadByte, ethernet_field::kDestination);
  code.jump_if(kHasBits, 1, accept);
  code.add(kLoadWord, ethernet_field::kDestination);
  code.jump_unless(kEquals, wire::load32(own.bytes.data()), refuse);
  code.add(kLoadHalf, ethernet_field::kDestination + 4);
  code.jump_unless(kEquals, wire::load16(own.bytes.data() + 4), refuse);
  code.place(accept);
  code.add(kReturn, kWhole);
  code.place(refuse);
  code.add(kReturn, 0);
  return code.finish();
}

ClassicProgram fanout_program(uint32_t queues, uint32_t rings, uint32_t key) {
  if (queues == 1) return {{kReturn, 0, 0, rings & 1}};
  Assembler code;
  const auto six = code.label();
  const auto icmp6 = code.label();
  const auto first = code.label();
  const auto mix = code.label();
  const auto ports = code.label();
  const auto choose = code.label();
  // The program sees a packet from its IP header on.
  code.add(kLoadHalf, kAncillary + SKF_AD_PROTOCOL);
  code.jump_if(kEquals, ethertype::kIpv6, six);
  code.jump_unless(kEquals, ethertype::kIpv4, first);
  code.add(kLoadWord, 12);
  code.add(kSave, kHash);
  fold_word(code, 16);
  code.add(kLoadHalf, 6);
  code.jump_if(kHasBits, 0x3fff, mix);  // a fragment: not all have ports
  code.add(kIndexHeader, 0);
  code.add(kLoadByte, 9);
  code.jump_if(kEquals, 6, ports);
  code.jump_if(kEquals, 17, ports);
  code.jump(mix);

  code.place(six);
  code.add(kLoadWord, 8);
  code.add(kSave, kHash);
  for (uint32_t offset = 12; offset < 40; offset += 4) fold_word(code, offset);
  code.add(kIndexConstant, 40);
  code.add(kLoadByte, 6);
  code.jump_if(kEquals, 6, ports);
  code.jump_if(kEquals, 17, ports);
  code.jump_if(kEquals, 58, icmp6);
  code.jump(mix);
  code.place(icmp6);
  code.add(kLoadByte, 40);
  code.jump_unless(kAtLeast, 133, mix);
  code.jump_if(kAtLeast, 138, mix);

  code.place(first);
  code.add(kLoadConstant, 0);
  code.jump(choose);

  code.place(ports);
  fold_ports(code, key);
  code.place(mix);
  code.add(kLoadSaved, kHash);
  code.add(kMultiply, key | 1);
  code.add(kToIndex);
  code.add(kShift, 15);
  code.add(kXorIndex);
  code.add(kMultiply, 0x2c1b3c6d);
  code.add(kShift, 12);
  code.add(kModulo, queues);

  code.place(choose);
  code.add(kToIndex);
  code.add(kLoadConstant, rings);
  code.add(kShiftIndex);
  code.add(kAnd, 1);
  code.add(kMultiply, queues);
  code.add(kAddIndex);
  code.add(kReturnLoaded);
  return code.finish();
}

}  // namespace apo
