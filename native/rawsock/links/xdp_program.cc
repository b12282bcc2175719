#include "links/xdp_program.h"

#include <array>
#include <bit>
#include <cerrno>

#include "ip/group_membership.h"
#include "wire/icmp.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace apo {
namespace {

using bpf::Assembler;
using Label = Assembler::Label;

constexpr uint32_t kPortWords = 65'536 / 64;  // of one protocol
constexpr uint32_t kUdpWords = kPortWords;    // where UDP's begin
constexpr uint32_t kEchoWords = 2 * kPortWords;
constexpr uint64_t kFragmentLifeNs = 30'000'000'000;

// struct xdp_md.
constexpr int16_t kContextData = 0;
constexpr int16_t kContextDataEnd = 4;
constexpr int16_t kContextRxQueue = 16;

constexpr int16_t kEthernetBytes = 14;

constexpr int32_t network16(uint16_t value) {
  return std::endian::native == std::endian::little ? (value >> 8 | (value & 0xff) << 8) : value;
}

// Registers.
constexpr uint8_t r0 = 0, r1 = 1, r2 = 2, r3 = 3, r4 = 4;
constexpr uint8_t kContext = 6, kCursor = 7, kEnd = 8, kProtocol = 9, kFrame = 10;

// The stack. The key of a fragmented datagram is 40 bytes: source, destination (16 each; IPv4 in
// the first 4), identification, protocol (IPv4 only: RFC 8200 4.5 has none), version, zeros.
constexpr uint32_t kKeyBytes = 40;
constexpr int16_t kKey = -40;
constexpr int16_t kSource = kKey;
constexpr int16_t kDestination = kKey + 16;
constexpr int16_t kIdentification = kKey + 32;
constexpr int16_t kKeyProtocol = kKey + 36;
constexpr int16_t kKeyVersion = kKey + 37;
constexpr int16_t kIsFirstFragment = -48;
constexpr int16_t kScratch = -56;
constexpr int16_t kScratch2 = -64;
constexpr int16_t kAddressKind = -72;  // what the destination must be: see the maps of addresses
constexpr uint8_t kOwnAddress = 1, kGroup = 2;

// Writes the program part by part; the parts meet at labels.
class Writer {
 public:
  struct Maps {
    int ports, addresses4, addresses6, fragments, sockets;
  };

  explicit Writer(const Maps& maps) : maps_(maps) {}

  std::vector<bpf_insn> write() {
    ethernet();
    ipv4();
    ipv6();
    icmp4();
    icmp6();
    echo_reply();
    quoted_ports();
    ports();
    verdicts();
    return code_.finish();
  }

 private:
  // Goes to `short_of` unless `bytes` lie at the cursor.
  void need(int32_t bytes, Label short_of) {
    code_.alu(BPF_MOV, r1, kCursor);
    code_.alu_number(BPF_ADD, r1, bytes);
    code_.jump_if(BPF_JGT, r1, kEnd, short_of);
  }
  void lookup(int map, int16_t key) {
    code_.load_map(r1, map);
    code_.alu(BPF_MOV, r2, kFrame);
    code_.alu_number(BPF_ADD, r2, key);
    code_.call(BPF_FUNC_map_lookup_elem);
  }
  // Goes to pass_ unless the destination is one of ours, and of the frame's kind.
  void lookup_destination(int map) {
    lookup(map, kDestination);
    code_.jump_if_number(BPF_JEQ, r0, 0, pass_);
    code_.load(BPF_B, r1, r0, 0);
    code_.load(BPF_DW, r2, kFrame, kAddressKind);
    code_.jump_if(BPF_JNE, r1, r2, pass_);
  }
  void load_network16(uint8_t to, int16_t offset) {
    code_.load(BPF_H, to, kCursor, offset);
    code_.network_to_host16(to);
  }
  // Goes to `label` unless the byte's high half is the IP version.
  void need_version(int16_t offset, int32_t version, Label label) {
    code_.load(BPF_B, r1, kCursor, offset);
    code_.alu_number(BPF_RSH, r1, 4);
    code_.jump_if_number(BPF_JNE, r1, version, label);
  }
  void copy_to_stack(uint8_t size, int16_t from, int16_t to) {
    code_.load(size, r1, kCursor, from);
    code_.store(size, kFrame, to, r1);
  }
  // Goes to pass_ when the quoted packet is not from the address that the error came to.
  void need_quoted_source(uint8_t size, int16_t quoted, int16_t own) {
    code_.load(size, r1, kCursor, quoted);
    code_.load(size, r2, kFrame, own);
    code_.jump_if(BPF_JNE, r1, r2, pass_);
  }

  void ethernet();
  void ipv4();
  void ipv6();
  void ipv6_extension_header(bool first);
  void icmp4();
  void icmp6();
  void echo_reply();
  void quoted_ports();
  void ports();
  void verdicts();

  const Maps maps_;
  Assembler code_;
  Label ipv4_ = code_.label();
  Label ipv6_ = code_.label();
  Label icmp4_ = code_.label();
  Label icmp6_ = code_.label();
  Label echo_reply_ = code_.label();
  Label quoted_ports_ = code_.label();
  Label ports_ = code_.label();
  Label port_ = code_.label();            // r1: first word of the protocol, r3: port
  Label later_fragment_ = code_.label();  // the key is whole
  Label ours_ = code_.label();
  Label redirect_ = code_.label();
  Label not_ours_ = code_.label();  // forgets a datagram whose first fragment this is
  Label pass_ = code_.label();
};

void Writer::ethernet() {
  code_.alu(BPF_MOV, kContext, r1);
  code_.load(BPF_W, kCursor, kContext, kContextData);
  code_.load(BPF_W, kEnd, kContext, kContextDataEnd);
  for (int16_t at = kKey; at < 0; at += 8) code_.store_number(BPF_DW, kFrame, at, 0);
  code_.store_number(BPF_DW, kFrame, kIsFirstFragment, 0);
  need(kEthernetBytes, pass_);
  // A frame to a group of machines must hold a packet to one: what TCP and UDP may not answer is the
  // kernel's (RFC 1122 3.3.6).
  code_.load(BPF_B, r1, kCursor, 0);
  code_.alu_number(BPF_AND, r1, 1);
  code_.alu_number(BPF_ADD, r1, kOwnAddress);
  code_.store(BPF_DW, kFrame, kAddressKind, r1);
  code_.load(BPF_H, r1, kCursor, 12);
  code_.alu_number(BPF_ADD, kCursor, kEthernetBytes);
  code_.jump_if_number(BPF_JEQ, r1, network16(0x0800), ipv4_);
  code_.jump_if_number(BPF_JEQ, r1, network16(0x86dd), ipv6_);
  code_.jump(pass_);
}

void Writer::ipv4() {
  namespace field = wire::ipv4_field;
  const Label whole = code_.label();
  code_.bind(ipv4_);
  need(wire::Ipv4View::kHeaderBytes, pass_);
  need_version(field::kVersionIhl, 4, pass_);
  code_.load(BPF_B, r1, kCursor, field::kVersionIhl);
  code_.alu_number(BPF_AND, r1, 15);
  code_.jump_if_number(BPF_JLT, r1, 5, pass_);
  copy_to_stack(BPF_W, field::kSource, kSource);
  copy_to_stack(BPF_W, field::kDestination, kDestination);
  copy_to_stack(BPF_H, field::kIdentification, kIdentification);
  code_.store_number(BPF_B, kFrame, kKeyVersion, 4);
  code_.load(BPF_B, kProtocol, kCursor, field::kProtocol);
  code_.store(BPF_B, kFrame, kKeyProtocol, kProtocol);
  lookup_destination(maps_.addresses4);

  load_network16(r1, field::kFragment);
  code_.alu(BPF_MOV, r2, r1);
  code_.alu_number(BPF_AND, r2, wire::Ipv4View::kFragmentOffsetMask);
  code_.jump_if_number(BPF_JNE, r2, 0, later_fragment_);
  code_.alu_number(BPF_AND, r1, wire::Ipv4View::kMoreFragments);
  code_.jump_if_number(BPF_JEQ, r1, 0, whole);
  code_.store_number(BPF_DW, kFrame, kIsFirstFragment, 1);
  code_.bind(whole);
  code_.load(BPF_B, r1, kCursor, field::kVersionIhl);
  code_.alu_number(BPF_AND, r1, 15);
  code_.alu_number(BPF_LSH, r1, 2);
  code_.alu(BPF_ADD, kCursor, r1);
  code_.jump_if_number(BPF_JEQ, kProtocol, wire::ip_protocol::kIcmp, icmp4_);
  code_.jump(ports_);
}

void Writer::ipv6() {
  namespace field = wire::ipv6_field;
  code_.bind(ipv6_);
  need(wire::Ipv6View::kHeaderBytes, pass_);
  need_version(0, 6, pass_);
  copy_to_stack(BPF_DW, field::kSource, kSource);
  copy_to_stack(BPF_DW, field::kSource + 8, kSource + 8);
  copy_to_stack(BPF_DW, field::kDestination, kDestination);
  copy_to_stack(BPF_DW, field::kDestination + 8, kDestination + 8);
  code_.store_number(BPF_B, kFrame, kKeyVersion, 6);
  lookup_destination(maps_.addresses6);
  code_.load(BPF_B, kProtocol, kCursor, field::kNextHeader);
  code_.alu_number(BPF_ADD, kCursor, wire::Ipv6View::kHeaderBytes);
  for (int i = 0; i < wire::kIpv6ExtensionHeadersMax; ++i) ipv6_extension_header(i == 0);
  code_.jump_if_number(BPF_JEQ, kProtocol, wire::ip_protocol::kIcmpv6, icmp6_);
  code_.jump(ports_);
}

// Steps over one extension header, or goes on as it is when the upper layer has been reached. An
// extension header that remains after the last step is no protocol that `ports` knows.
void Writer::ipv6_extension_header(bool first) {
  namespace protocol = wire::ip_protocol;
  const Label done = code_.label(), options = code_.label(), routing = code_.label();
  const Label fragment = code_.label();
  if (first) code_.jump_if_number(BPF_JEQ, kProtocol, protocol::kHopByHop, options);
  code_.jump_if_number(BPF_JEQ, kProtocol, protocol::kDestinationOptions, options);
  code_.jump_if_number(BPF_JEQ, kProtocol, protocol::kRouting, routing);
  code_.jump_if_number(BPF_JEQ, kProtocol, protocol::kFragment, fragment);
  code_.jump(done);

  code_.bind(fragment);
  need(8, not_ours_);
  copy_to_stack(BPF_W, 4, kIdentification);
  load_network16(r2, 2);
  code_.alu(BPF_MOV, r1, r2);
  code_.alu_number(BPF_AND, r1, 0xfff8);
  code_.jump_if_number(BPF_JNE, r1, 0, later_fragment_);
  code_.load(BPF_B, kProtocol, kCursor, 0);
  code_.alu_number(BPF_ADD, kCursor, 8);
  code_.alu_number(BPF_AND, r2, 1);
  code_.jump_if_number(BPF_JEQ, r2, 0, done);  // a whole datagram all the same (RFC 6946)
  code_.store_number(BPF_DW, kFrame, kIsFirstFragment, 1);
  code_.jump(done);

  code_.bind(routing);
  need(8, not_ours_);
  code_.load(BPF_B, r1, kCursor, 3);  // segments left: not at its destination yet
  code_.jump_if_number(BPF_JNE, r1, 0, not_ours_);

  code_.bind(options);
  need(8, not_ours_);
  code_.load(BPF_B, kProtocol, kCursor, 0);
  code_.load(BPF_B, r1, kCursor, 1);
  code_.alu_number(BPF_ADD, r1, 1);
  code_.alu_number(BPF_LSH, r1, 3);
  code_.alu(BPF_ADD, kCursor, r1);
  code_.bind(done);
}

void Writer::icmp4() {
  namespace field = wire::ipv4_field;
  constexpr int16_t kQuoted = wire::icmp_field::kQuoted;
  const Label error = code_.label();
  code_.bind(icmp4_);
  code_.load(BPF_DW, r1, kFrame, kIsFirstFragment);
  code_.jump_if_number(BPF_JNE, r1, 0, not_ours_);
  need(wire::IcmpView::kHeaderBytes, pass_);
  code_.load(BPF_B, r1, kCursor, wire::icmp_field::kType);
  code_.jump_if_number(BPF_JEQ, r1, wire::icmp_type::kEchoReply, echo_reply_);
  need(kQuoted + static_cast<int32_t>(wire::Ipv4View::kHeaderBytes), pass_);
  code_.load(BPF_B, r1, kCursor, wire::icmp_field::kType);
  code_.jump_if_number(BPF_JEQ, r1, wire::icmp_type::kUnreachable, error);
  code_.jump_if_number(BPF_JEQ, r1, wire::icmp_type::kTimeExceeded, error);
  code_.jump_if_number(BPF_JNE, r1, wire::icmp_type::kParameterProblem, pass_);
  code_.bind(error);
  need_version(kQuoted, 4, pass_);
  load_network16(r1, kQuoted + field::kFragment);
  code_.alu_number(BPF_AND, r1, wire::Ipv4View::kFragmentOffsetMask);
  code_.jump_if_number(BPF_JNE, r1, 0, pass_);
  need_quoted_source(BPF_W, kQuoted + field::kSource, kDestination);
  code_.load(BPF_B, kProtocol, kCursor, kQuoted + field::kProtocol);
  code_.load(BPF_B, r1, kCursor, kQuoted);
  code_.alu_number(BPF_AND, r1, 15);
  code_.jump_if_number(BPF_JLT, r1, 5, pass_);
  code_.alu_number(BPF_LSH, r1, 2);
  code_.alu_number(BPF_ADD, kCursor, kQuoted);
  code_.alu(BPF_ADD, kCursor, r1);
  code_.jump(quoted_ports_);
}

void Writer::icmp6() {
  namespace field = wire::ipv6_field;
  constexpr int16_t kQuoted = wire::icmp_field::kQuoted;
  code_.bind(icmp6_);
  code_.load(BPF_DW, r1, kFrame, kIsFirstFragment);
  code_.jump_if_number(BPF_JNE, r1, 0, not_ours_);
  need(wire::IcmpView::kHeaderBytes, pass_);
  code_.load(BPF_B, r1, kCursor, wire::icmp_field::kType);
  code_.jump_if_number(BPF_JEQ, r1, wire::icmpv6_type::kEchoReply, echo_reply_);
  need(kQuoted + static_cast<int32_t>(wire::Ipv6View::kHeaderBytes), pass_);
  code_.load(BPF_B, r1, kCursor, wire::icmp_field::kType);
  code_.jump_if_number(BPF_JLT, r1, wire::icmpv6_type::kUnreachable, pass_);
  code_.jump_if_number(BPF_JGT, r1, wire::icmpv6_type::kParameterProblem, pass_);
  need_version(kQuoted, 6, pass_);
  need_quoted_source(BPF_DW, kQuoted + field::kSource, kDestination);
  need_quoted_source(BPF_DW, kQuoted + field::kSource + 8, kDestination + 8);
  code_.load(BPF_B, kProtocol, kCursor, kQuoted + field::kNextHeader);
  code_.alu_number(BPF_ADD, kCursor, kQuoted + static_cast<int32_t>(wire::Ipv6View::kHeaderBytes));
  // Of extension headers our packets have one at most: that of a fragment.
  code_.jump_if_number(BPF_JNE, kProtocol, wire::ip_protocol::kFragment, quoted_ports_);
  need(8, pass_);
  load_network16(r1, 2);
  code_.alu_number(BPF_AND, r1, 0xfff8);
  code_.jump_if_number(BPF_JNE, r1, 0, pass_);
  code_.load(BPF_B, kProtocol, kCursor, 0);
  code_.alu_number(BPF_ADD, kCursor, 8);
  code_.jump(quoted_ports_);
}

// The ICMP header is there.
void Writer::echo_reply() {
  code_.bind(echo_reply_);
  load_network16(r3, wire::icmp_field::kIdentifier);
  code_.alu_number(BPF_MOV, r1, kEchoWords);
  code_.jump(port_);
}

// The source port of the quoted packet is ours, its destination port the peer's.
void Writer::quoted_ports() {
  const Label udp = code_.label();
  code_.bind(quoted_ports_);
  need(4, pass_);
  load_network16(r3, 0);
  code_.jump_if_number(BPF_JEQ, kProtocol, wire::ip_protocol::kUdp, udp);
  code_.jump_if_number(BPF_JNE, kProtocol, wire::ip_protocol::kTcp, pass_);
  code_.alu_number(BPF_MOV, r1, 0);
  code_.jump(port_);
  code_.bind(udp);
  code_.alu_number(BPF_MOV, r1, kUdpWords);
  code_.jump(port_);
}

void Writer::ports() {
  const Label udp = code_.label();
  code_.bind(ports_);
  need(4, not_ours_);
  load_network16(r3, 2);
  code_.jump_if_number(BPF_JEQ, kProtocol, wire::ip_protocol::kUdp, udp);
  code_.jump_if_number(BPF_JNE, kProtocol, wire::ip_protocol::kTcp, not_ours_);
  code_.alu_number(BPF_MOV, r1, 0);
  code_.jump(port_);
  code_.bind(udp);
  code_.alu_number(BPF_MOV, r1, kUdpWords);

  code_.bind(port_);
  code_.alu(BPF_MOV, r2, r3);
  code_.alu_number(BPF_RSH, r2, 6);
  code_.alu(BPF_ADD, r2, r1);
  code_.store(BPF_W, kFrame, kScratch, r2);
  code_.alu_number(BPF_AND, r3, 63);
  code_.store(BPF_DW, kFrame, kScratch2, r3);
  lookup(maps_.ports, kScratch);
  code_.jump_if_number(BPF_JEQ, r0, 0, pass_);
  code_.load(BPF_DW, r1, r0, 0);
  code_.load(BPF_DW, r2, kFrame, kScratch2);
  code_.alu(BPF_RSH, r1, r2);
  code_.alu_number(BPF_AND, r1, 1);
  code_.jump_if_number(BPF_JEQ, r1, 0, not_ours_);
}

void Writer::verdicts() {
  code_.bind(ours_);
  code_.load(BPF_DW, r1, kFrame, kIsFirstFragment);
  code_.jump_if_number(BPF_JEQ, r1, 0, redirect_);
  code_.call(BPF_FUNC_ktime_get_ns);
  code_.store(BPF_DW, kFrame, kScratch2, r0);
  code_.load_map(r1, maps_.fragments);
  code_.alu(BPF_MOV, r2, kFrame);
  code_.alu_number(BPF_ADD, r2, kKey);
  code_.alu(BPF_MOV, r3, kFrame);
  code_.alu_number(BPF_ADD, r3, kScratch2);
  code_.alu_number(BPF_MOV, r4, BPF_ANY);
  code_.call(BPF_FUNC_map_update_elem);

  code_.bind(redirect_);
  code_.load(BPF_W, r2, kContext, kContextRxQueue);
  code_.load_map(r1, maps_.sockets);
  code_.alu_number(BPF_MOV, r3, XDP_PASS);  // when that queue has no socket
  code_.call(BPF_FUNC_redirect_map);
  code_.exit();

  code_.bind(later_fragment_);
  lookup(maps_.fragments, kKey);
  code_.jump_if_number(BPF_JEQ, r0, 0, pass_);
  code_.load(BPF_DW, kCursor, r0, 0);
  code_.call(BPF_FUNC_ktime_get_ns);
  code_.alu(BPF_SUB, r0, kCursor);
  code_.load_number64(r1, kFragmentLifeNs);
  code_.jump_if(BPF_JLE, r0, r1, redirect_);
  code_.jump(pass_);

  code_.bind(not_ours_);
  code_.load(BPF_DW, r1, kFrame, kIsFirstFragment);
  code_.jump_if_number(BPF_JEQ, r1, 0, pass_);
  code_.load_map(r1, maps_.fragments);
  code_.alu(BPF_MOV, r2, kFrame);
  code_.alu_number(BPF_ADD, r2, kKey);
  code_.call(BPF_FUNC_map_delete_elem);
  code_.bind(pass_);
  code_.alu_number(BPF_MOV, r0, XDP_PASS);
  code_.exit();
}

}  // namespace

int XdpProgram::make_map(const bpf::MapShape& shape, const char* name, UniqueFd& map) {
  bpf::Made made = bpf::create_map(shape, name);
  if (!made.fd) step_ = std::string("bpf(BPF_MAP_CREATE) ") + name;
  map = std::move(made.fd);
  return made.error;
}

int XdpProgram::load() {
  const auto addresses = static_cast<uint32_t>(AddressSet::kMax + GroupMembership::kGroupsMax);
  int error = make_map({BPF_MAP_TYPE_ARRAY, 4, 8, 3 * kPortWords}, "apo_ports", ports_);
  if (error == 0) {
    error = make_map({BPF_MAP_TYPE_HASH, 4, 1, addresses}, "apo_addresses4", addresses4_);
  }
  if (error == 0) {
    error = make_map({BPF_MAP_TYPE_HASH, 16, 1, addresses}, "apo_addresses6", addresses6_);
  }
  if (error == 0) {
    error =
        make_map({BPF_MAP_TYPE_LRU_HASH, kKeyBytes, 8, kFragmentsMax}, "apo_fragments", fragments_);
  }
  if (error == 0) {
    error = make_map({BPF_MAP_TYPE_XSKMAP, 4, 4, kRxQueuesMax}, "apo_sockets", sockets_);
  }
  if (error != 0) return error;
  Writer writer(
      {ports_.get(), addresses4_.get(), addresses6_.get(), fragments_.get(), sockets_.get()});
  const std::vector<bpf_insn> code = writer.write();
  bpf::Made made = bpf::load_xdp_program(code, "apo_steer");
  if (!made.fd) {
    step_ = "bpf(BPF_PROG_LOAD)";
    words_ = std::move(made.words);
  }
  program_ = std::move(made.fd);
  return made.error;
}

int XdpProgram::add_address(const IpAddress& address) {
  const UniqueFd& map = address.version == 4 ? addresses4_ : addresses6_;
  return bpf::update_map(map.get(), address.bytes.data(), &kOwnAddress);
}

int XdpProgram::set_group(const IpAddress& group, bool joined) {
  const UniqueFd& map = group.version == 4 ? addresses4_ : addresses6_;
  return joined ? bpf::update_map(map.get(), group.bytes.data(), &kGroup)
                : bpf::delete_from_map(map.get(), group.bytes.data());
}

int XdpProgram::set_port(uint8_t protocol, uint16_t port, bool open) {
  uint32_t index = port / 64;
  if (protocol == wire::ip_protocol::kUdp) {
    index += kUdpWords;
  } else if (protocol == wire::ip_protocol::kIcmp) {
    index += kEchoWords;
  } else if (protocol != wire::ip_protocol::kTcp) {
    return EINVAL;
  }
  uint64_t word = 0;
  if (const int error = bpf::lookup_map(ports_.get(), &index, &word); error != 0) return error;
  const uint64_t bit = uint64_t{1} << (port % 64);
  word = open ? word | bit : word & ~bit;
  return bpf::update_map(ports_.get(), &index, &word);
}

int XdpProgram::set_socket(uint32_t rx_queue, int socket) {
  return bpf::update_map(sockets_.get(), &rx_queue, &socket);
}

int XdpProgram::clear_socket(uint32_t rx_queue) {
  return bpf::delete_from_map(sockets_.get(), &rx_queue);
}

}  // namespace apo
