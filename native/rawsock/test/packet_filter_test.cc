// The packet link's BPF programs, run by a small interpreter of the instructions that they use.
#include <optional>
#include <random>

#include "check.h"
#include "links/packet_filter.h"
#include "packet_builder.h"

namespace {

using namespace apo;
using namespace apo::test;

struct Frame {
  Bytes
      bytes;  // what the program sees: from the Ethernet header (filter) or the IP header (fan-out)
  uint16_t protocol = 0;
  bool tagged = false;
  uint16_t tag = 0;
};

std::optional<uint32_t> load(const Frame& frame, uint32_t offset, size_t bytes) {
  const auto ancillary = static_cast<uint32_t>(SKF_AD_OFF);
  if (offset == ancillary + SKF_AD_PROTOCOL) return frame.protocol;
  if (offset == ancillary + SKF_AD_VLAN_TAG_PRESENT) return frame.tagged;
  if (offset == ancillary + SKF_AD_VLAN_TAG) return frame.tag;
  if (static_cast<size_t>(offset) + bytes > frame.bytes.size()) return std::nullopt;
  uint32_t value = 0;
  for (size_t i = 0; i < bytes; ++i) value = value << 8 | frame.bytes[offset + i];
  return value;
}

size_t width(uint16_t code) {
  return BPF_SIZE(code) == BPF_W ? 4 : BPF_SIZE(code) == BPF_H ? 2 : 1;
}

uint32_t operate(uint16_t code, uint32_t a, uint32_t b) {
  switch (BPF_OP(code)) {
    case BPF_ADD:
      return a + b;
    case BPF_MUL:
      return a * b;
    case BPF_AND:
      return a & b;
    case BPF_XOR:
      return a ^ b;
    case BPF_RSH:
      return b < 32 ? a >> b : 0;
    case BPF_MOD:
      CHECK(b != 0);
      return a % b;
    default:
      CHECK(!"an operation that the programs use");
      return 0;
  }
}

uint32_t run(const ClassicProgram& program, const Frame& frame) {
  uint32_t a = 0, x = 0;
  uint32_t memory[BPF_MEMWORDS] = {};
  for (size_t at = 0; at < program.size(); ++at) {
    const sock_filter& one = program[at];
    switch (BPF_CLASS(one.code)) {
      case BPF_LD:
        if (BPF_MODE(one.code) == BPF_IMM) {
          a = one.k;
        } else if (BPF_MODE(one.code) == BPF_MEM) {
          a = memory[one.k];
        } else {
          const uint32_t offset = BPF_MODE(one.code) == BPF_IND ? x + one.k : one.k;
          const auto value = load(frame, offset, width(one.code));
          if (!value) return 0;  // as the kernel has it
          a = *value;
        }
        break;
      case BPF_LDX:
        if (BPF_MODE(one.code) == BPF_IMM) {
          x = one.k;
        } else if (BPF_MODE(one.code) == BPF_MEM) {
          x = memory[one.k];
        } else {
          CHECK(BPF_MODE(one.code) == BPF_MSH && one.k < frame.bytes.size());
          x = 4 * (frame.bytes[one.k] & 15u);
        }
        break;
      case BPF_ST:
        memory[one.k] = a;
        break;
      case BPF_ALU:
        a = operate(one.code, a, BPF_SRC(one.code) == BPF_X ? x : one.k);
        break;
      case BPF_MISC:
        x = a;
        break;
      case BPF_RET:
        return BPF_RVAL(one.code) == BPF_A ? a : one.k;
      case BPF_JMP: {
        if (BPF_OP(one.code) == BPF_JA) {
          at += one.k;
          break;
        }
        const bool holds = BPF_OP(one.code) == BPF_JEQ   ? a == one.k
                           : BPF_OP(one.code) == BPF_JGE ? a >= one.k
                                                         : (a & one.k) != 0;
        at += holds ? one.jt : one.jf;
        break;
      }
      default:
        CHECK(!"an instruction that the programs use");
    }
  }
  CHECK(!"a program that ends");
  return 0;
}

void lets_our_frames_in() {
  const MacAddress own{{2, 0, 0, 0, 0, 1}};
  const ClassicProgram filter = frame_filter(own);
  const auto frame = [&](const MacAddress& to, uint16_t type) {
    Frame made;
    made.bytes.resize(60);
    write_ethernet_header(made.bytes.data(), to, {{2, 0, 0, 0, 0, 9}}, type);
    return made;
  };
  const uint16_t ours[] = {ethertype::kIpv4, ethertype::kIpv6, ethertype::kArp};
  for (const uint16_t type : ours) {
    CHECK(run(filter, frame(own, type)) > 65'535);
    CHECK(run(filter, frame(MacAddress::broadcast(), type)) > 65'535);
    CHECK(run(filter, frame({{0x33, 0x33, 0, 0, 0, 1}}, type)) > 65'535);
    for (size_t i = 0; i < MacAddress::kBytes; ++i) {
      MacAddress other = own;
      other.bytes[i] ^= 4;
      CHECK(run(filter, frame(other, type)) == 0);
    }
    Frame tagged = frame(own, type);
    tagged.tagged = true;
    tagged.tag = 0xe000;  // a priority and no VLAN
    CHECK(run(filter, tagged) > 65'535);
    tagged.tag = 0xe007;
    CHECK(run(filter, tagged) == 0);
  }
  for (const uint16_t type : {0x8100, 0x88cc, 0x0805, 0x0026}) {
    CHECK(run(filter, frame(own, static_cast<uint16_t>(type))) == 0);
  }
  CHECK(run(closed_filter(), frame(own, ethertype::kIpv4)) == 0);
}

Frame flow(bool six, uint8_t protocol, uint8_t last, uint16_t port, bool back) {
  uint8_t peer[16] = {10, 0, 0, last};
  if (six) peer[0] = 0xfd;
  const uint8_t* own = six ? kOwn6 : kOwn4;
  Bytes upper(20);
  wire::store16(&upper[back ? 2 : 0], port);
  wire::store16(&upper[back ? 0 : 2], 7);
  const uint8_t* from = back ? own : peer;
  const uint8_t* to = back ? peer : own;
  return {six ? ipv6(protocol, upper, from, to) : ipv4(protocol, upper, from, to),
          six ? ethertype::kIpv6 : ethertype::kIpv4};
}

void shares_flows_out() {
  for (const uint32_t queues : {1u, 2u, 3u, 16u}) {
    const uint32_t rings = 0x5a5a & ((1u << queues) - 1);
    const ClassicProgram plain = fanout_program(queues, 0, 0x12345);
    const ClassicProgram some = fanout_program(queues, rings, 0x12345);
    CHECK(plain.size() <= 128);
    uint32_t used[16] = {};
    for (uint32_t i = 0; i < 1600; ++i) {
      const bool six = i % 2 == 1;
      const uint8_t protocol = i % 3 == 0 ? 6 : 17;
      const Frame forth =
          flow(six, protocol, static_cast<uint8_t>(i), static_cast<uint16_t>(i), false);
      const Frame back =
          flow(six, protocol, static_cast<uint8_t>(i), static_cast<uint16_t>(i), true);
      const uint32_t queue = run(plain, forth);
      CHECK(queue < queues && run(plain, back) == queue);
      CHECK(run(some, forth) == queue + ((rings >> queue & 1) != 0 ? queues : 0));
      ++used[queue];
    }
    for (uint32_t queue = 0; queue < queues; ++queue) {
      CHECK(used[queue] > 1600 / queues / 2 && used[queue] < 1600 * 2 / queues + 1);
    }
  }
}

void keeps_together_what_belongs_together() {
  const ClassicProgram program = fanout_program(16, 0, 0x777);
  // All fragments of a datagram, whatever stands where the ports would.
  for (uint8_t last = 2; last < 40; ++last) {
    Frame first = flow(false, 17, last, 1000, false);
    wire::store16(&first.bytes[6], 0x2000);
    Frame second = flow(false, 17, last, 54'321, false);
    wire::store16(&second.bytes[6], 185);
    CHECK(run(program, first) == run(program, second));
  }
  // Neighbour Discovery and ARP are queue 0's; ICMPv6 beside it is shared out.
  uint32_t others = 0;
  for (uint8_t last = 2; last < 60; ++last) {
    uint8_t peer[16] = {0xfd};
    peer[15] = last;
    for (const uint8_t type : {128, 133, 135, 137, 138}) {
      const Frame frame{ipv6(58, {type, 0, 0, 0, 0, 0, 0, 0}, peer, kOwn6), ethertype::kIpv6};
      const bool discovery = type >= 133 && type <= 137;
      if (discovery) CHECK(run(program, frame) == 0);
      if (!discovery && run(program, frame) != 0) ++others;
    }
  }
  CHECK(others > 0);
  CHECK(run(program, {Bytes(28), ethertype::kArp}) == 0);
  // Cut short, it is still somebody's.
  for (size_t length = 0; length < 48; ++length) {
    Frame frame = flow(true, 17, 9, 9, false);
    frame.bytes.resize(length);
    CHECK(run(program, frame) < 16);
  }
}

}  // namespace

int main() {
  lets_our_frames_in();
  shares_flows_out();
  keeps_together_what_belongs_together();
}
