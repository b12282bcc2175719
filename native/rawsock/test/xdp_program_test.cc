// The XDP program against a model of the same decision written the obvious way: golden frames with
// the verdict written down, then random ones, where both must agree. The kernel runs the program
// (BPF_PROG_TEST_RUN), so this needs root.
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <map>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "check.h"
#include "links/xdp_program.h"
#include "links/xdp_socket.h"
#include "packet_builder.h"

namespace {

using namespace apo;
using namespace apo::test;

constexpr uint8_t kTcp = 6, kUdp = 17;
constexpr uint16_t kOpenTcp = 443, kOpenUdp = 5004, kForeign = 22, kOpenEcho = 777;
constexpr uint8_t kElse4[4] = {10, 0, 0, 9};
constexpr uint8_t kElse6[16] = {0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9};

// ---- the model: what links/xdp_program.h promises ----

class Model {
 public:
  bool is_ours(const Bytes& frame) {
    if (frame.size() < 14 || (frame[0] & 1) != 0) return false;
    const uint32_t type = wire::load16(&frame[12]);
    const Bytes packet(frame.begin() + 14, frame.end());
    if (type == 0x0800) return ipv4_is_ours(packet);
    return type == 0x86dd && ipv6_is_ours(packet);
  }

 private:
  using Datagram = std::vector<uint8_t>;

  static bool is_open(uint8_t protocol, uint32_t port) {
    return (protocol == kTcp && port == kOpenTcp) || (protocol == kUdp && port == kOpenUdp);
  }
  static bool port_is_open(const Bytes& packet, size_t at, uint8_t protocol) {
    return packet.size() >= at + 4 && is_open(protocol, wire::load16(&packet[at + 2]));
  }
  static bool source_port_is_open(const Bytes& packet, size_t at, uint8_t protocol) {
    return packet.size() >= at + 4 && is_open(protocol, wire::load16(&packet[at]));
  }

  bool first_fragment(const Datagram& datagram, bool ours) {
    if (ours) {
      remembered_.insert(datagram);
    } else {
      remembered_.erase(datagram);
    }
    return ours;
  }

  bool ipv4_is_ours(const Bytes& ip) {
    if (ip.size() < 20 || ip[0] >> 4 != 4 || (ip[0] & 15) < 5) return false;
    if (!std::equal(kOwn4, kOwn4 + 4, &ip[16])) return false;
    const uint8_t protocol = ip[9];
    const size_t header = 4u * (ip[0] & 15);
    Datagram datagram(&ip[12], &ip[20]);
    datagram.insert(datagram.end(), {ip[4], ip[5], protocol, 4});
    const uint32_t fragment = wire::load16(&ip[6]);
    if ((fragment & 0x1fff) != 0) return remembered_.contains(datagram);
    const bool is_first = (fragment & 0x2000) != 0;
    bool ours = false;
    if (protocol == 1) {
      ours = !is_first && icmp4_is_ours(ip, header);
    } else {
      ours = port_is_open(ip, header, protocol);
    }
    return is_first ? first_fragment(datagram, ours) : ours;
  }

  static bool echo_is_ours(const Bytes& ip, size_t at) {
    return wire::load16(&ip[at + 4]) == kOpenEcho;
  }

  static bool icmp4_is_ours(const Bytes& ip, size_t at) {
    if (ip.size() >= at + 8 && ip[at] == 0) return echo_is_ours(ip, at);
    if (ip.size() < at + 28) return false;
    const uint8_t type = ip[at];
    if (type != 3 && type != 11 && type != 12) return false;
    const size_t quoted = at + 8;
    if (ip[quoted] >> 4 != 4 || (ip[quoted] & 15) < 5) return false;
    if ((wire::load16(&ip[quoted + 6]) & 0x1fff) != 0) return false;
    if (!std::equal(&ip[16], &ip[20], &ip[quoted + 12])) return false;
    return source_port_is_open(ip, quoted + 4u * (ip[quoted] & 15), ip[quoted + 9]);
  }

  bool ipv6_is_ours(const Bytes& ip) {
    if (ip.size() < 40 || ip[0] >> 4 != 6) return false;
    if (!std::equal(kOwn6, kOwn6 + 16, &ip[24])) return false;
    uint8_t next = ip[6];
    size_t at = 40;
    bool is_first = false;
    Datagram datagram(&ip[8], &ip[40]);
    const auto verdict = [&](bool ours) {
      return is_first ? first_fragment(datagram, ours) : ours;
    };
    for (int i = 0; i < 8; ++i) {
      const bool options = next == 60 || (next == 0 && i == 0);
      if (!options && next != 43 && next != 44) break;
      if (ip.size() < at + 8) return verdict(false);
      if (next == 43 && ip[at + 3] != 0) return verdict(false);
      if (next == 44) {
        datagram.resize(32);
        datagram.insert(datagram.end(), {ip[at + 4], ip[at + 5], ip[at + 6], ip[at + 7], 6});
        const uint32_t fragment = wire::load16(&ip[at + 2]);
        if ((fragment & 0xfff8) != 0) return remembered_.contains(datagram);
        is_first = is_first || (fragment & 1) != 0;
        at += 8;
        next = ip[at - 8];
      } else {
        next = ip[at];
        at += 8 + 8u * ip[at + 1];
      }
    }
    if (next == 58) return verdict(!is_first && icmp6_is_ours(ip, at));
    return verdict(port_is_open(ip, at, next));
  }

  static bool icmp6_is_ours(const Bytes& ip, size_t at) {
    if (ip.size() >= at + 8 && ip[at] == 129) return echo_is_ours(ip, at);
    if (ip.size() < at + 48 || ip[at] < 1 || ip[at] > 4) return false;
    const size_t quoted = at + 8;
    if (ip[quoted] >> 4 != 6 || !std::equal(&ip[24], &ip[40], &ip[quoted + 8])) return false;
    uint8_t next = ip[quoted + 6];
    size_t upper = quoted + 40;
    if (next == 44) {
      if (ip.size() < upper + 8 || (wire::load16(&ip[upper + 2]) & 0xfff8) != 0) return false;
      next = ip[upper];
      upper += 8;
    }
    return source_port_is_open(ip, upper, next);
  }

  std::set<Datagram> remembered_;
};

// ---- the program, with a socket behind RX queue 0 so that a redirection is possible ----

struct Bench {
  XdpProgram program;
  XdpSocket socket;
  void* memory = nullptr;

  // False: not allowed here.
  bool open() {
    const int error = program.load();
    if (error == EPERM) return false;
    if (error != 0) {
      std::fprintf(stderr, "%s: errno %d\n%s\n", program.step().c_str(), error,
                   program.words().c_str());
    }
    CHECK(error == 0);
    constexpr size_t kBytes = 64 * 2048;
    memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    CHECK(socket.open() == 0);
    CHECK(socket.register_memory({static_cast<uint8_t*>(memory), kBytes}) == 0);
    CHECK(socket.make_rings({64, 64, 64, 64}) == 0);
    CHECK(program.set_socket(0, socket.fd()) == 0);
    CHECK(program.add_address(IpAddress::from_bytes(4, kOwn4)) == 0);
    CHECK(program.add_address(IpAddress::from_bytes(6, kOwn6)) == 0);
    CHECK(program.set_port(kTcp, kOpenTcp, true) == 0);
    CHECK(program.set_port(kUdp, kOpenUdp, true) == 0);
    CHECK(program.set_port(1, kOpenEcho, true) == 0);
    return true;
  }
  ~Bench() {
    socket.close();
    if (memory != nullptr) munmap(memory, 64 * 2048);
  }

  bool is_ours(const Bytes& frame) const {
    uint32_t result = 0;
    CHECK(bpf::run_xdp_program(program.fd(), frame, &result));
    CHECK(result == XDP_PASS || result == XDP_REDIRECT);
    return result == XDP_REDIRECT;
  }
};

Bytes ethernet(uint32_t type, const Bytes& packet) {
  Bytes frame = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0, 0};
  wire::store16(&frame[12], type);
  return concat(frame, packet);
}
Bytes frame4(const Bytes& packet) { return ethernet(0x0800, packet); }
Bytes frame6(const Bytes& packet) { return ethernet(0x86dd, packet); }

Bytes segment(uint16_t from, uint16_t to) {
  Bytes bytes(20);
  wire::store16(&bytes[0], from);
  wire::store16(&bytes[2], to);
  bytes[12] = 0x50;
  return bytes;
}
Bytes datagram(uint16_t from, uint16_t to) {
  Bytes bytes(8 + 24);
  wire::store16(&bytes[0], from);
  wire::store16(&bytes[2], to);
  wire::store16(&bytes[4], 32);
  return bytes;
}
Bytes with_options4(const Bytes& packet, size_t words) {
  Bytes options(packet.begin(), packet.begin() + 20);
  options[0] = static_cast<uint8_t>(0x45 + words);
  options.resize(20 + 4 * words, 1);  // no operation
  return concat(options, Bytes(packet.begin() + 20, packet.end()));
}
Bytes fragment4(const Bytes& upper, uint8_t protocol, uint16_t id, uint32_t fragment_word) {
  Bytes packet = ipv4(protocol, upper);
  wire::store16(&packet[4], id);
  wire::store16(&packet[6], fragment_word);
  return frame4(packet);
}
Bytes extension(uint8_t next, uint8_t units = 0) {
  Bytes header(8 + 8u * units);
  header[0] = next;
  header[1] = units;
  return header;
}
Bytes fragment6(const Bytes& upper, uint8_t next, uint8_t id, uint32_t fragment_word) {
  Bytes header = {next, 0, 0, 0, 0, 0, 0, id};
  wire::store16(&header[2], fragment_word);
  return frame6(ipv6(44, concat(header, upper)));
}
// An ICMP error about a packet that we sent from `port`.
Bytes error4(uint8_t type, uint8_t protocol, uint16_t port, const uint8_t* from = kOwn4) {
  const Bytes upper = protocol == kTcp ? segment(port, 9) : datagram(port, 9);
  return frame4(icmp(false, type, 0, 0, ipv4(protocol, upper, from, kPeer4)));
}
Bytes error6(uint8_t type, uint8_t protocol, uint16_t port, const uint8_t* from = kOwn6) {
  const Bytes upper = protocol == kTcp ? segment(port, 9) : datagram(port, 9);
  return frame6(icmp(true, type, 0, 0, ipv6(protocol, upper, from, kPeer6)));
}

using Case = std::pair<Bytes, bool>;

std::vector<Case> whole_packets() {
  const Bytes udp_ours = datagram(9, kOpenUdp), tcp_ours = segment(9, kOpenTcp);
  const Bytes udp_foreign = datagram(9, kForeign);
  Bytes group = frame4(ipv4(kUdp, udp_ours));
  group[0] |= 1;
  Bytes vlan = frame4(ipv4(kUdp, udp_ours));
  vlan.insert(vlan.begin() + 12, {0x81, 0x00, 0, 5});
  return {
      {frame4(ipv4(kUdp, udp_ours)), true},
      {frame4(ipv4(kTcp, tcp_ours)), true},
      {frame6(ipv6(kUdp, udp_ours)), true},
      {frame6(ipv6(kTcp, tcp_ours)), true},
      {frame4(ipv4(kUdp, udp_foreign)), false},
      {frame6(ipv6(kUdp, udp_foreign)), false},
      // A UDP port is not a TCP port, and the source port does not count.
      {frame4(ipv4(kTcp, segment(9, kOpenUdp))), false},
      {frame6(ipv6(kUdp, datagram(9, kOpenTcp))), false},
      {frame4(ipv4(kUdp, datagram(kOpenUdp, 9))), false},
      {frame4(ipv4(kUdp, udp_ours, kPeer4, kElse4)), false},
      {frame6(ipv6(kUdp, udp_ours, kPeer6, kElse6)), false},
      {frame4(ipv4(132, udp_ours)), false},
      {group, false},
      {vlan, false},
      {ethernet(0x0806, Bytes(28)), false},
      {frame4(with_options4(ipv4(kUdp, udp_ours), 1)), true},
      {frame4(with_options4(ipv4(kTcp, tcp_ours), 10)), true},
      {frame4(with_options4(ipv4(kUdp, udp_foreign), 10)), false},
      {ethernet(0x86dd, ipv4(kUdp, udp_ours)), false},
      {ethernet(0x0800, ipv6(kUdp, udp_ours)), false},
      {frame4(icmp(false, 8, 0, 1, Bytes(16))), false},
      {frame6(icmp(true, 128, 0, 1, Bytes(16))), false},
      {frame4(icmp(false, 0, 0, kOpenEcho << 16 | 3, Bytes(16))), true},
      {frame6(icmp(true, 129, 0, kOpenEcho << 16 | 3, Bytes(16))), true},
      {frame4(icmp(false, 0, 0, kOpenTcp << 16 | 3, Bytes(16))), false},
      {frame6(icmp(true, 129, 0, 5 << 16 | kOpenEcho, Bytes(16))), false},
      {frame4(icmp(false, 8, 0, kOpenEcho << 16 | 3, Bytes(16))), false},
      {frame6(icmp(true, 135, 0, 0, Bytes(16))), false},
  };
}

std::vector<Case> extension_headers() {
  const Bytes ours = datagram(9, kOpenUdp);
  Bytes seven, eight, nine;
  for (int i = 0; i < 6; ++i) seven = concat(extension(60), seven);
  seven = concat(seven, concat(extension(kUdp), ours));
  eight = concat(extension(60), seven);
  nine = concat(extension(60), eight);
  Bytes left = extension(kUdp);
  left[2] = 4;
  left[3] = 1;
  return {
      {frame6(ipv6(0, concat(extension(kUdp), ours))), true},
      {frame6(ipv6(60, concat(extension(kUdp, 3), ours))), true},
      {frame6(ipv6(0, concat(extension(60, 7), concat(extension(kUdp, 1), ours)))), true},
      {frame6(ipv6(43, concat(extension(kUdp, 2), ours))), true},
      {frame6(ipv6(43, concat(left, ours))), false},
      {frame6(ipv6(60, concat(extension(0), concat(extension(kUdp), ours)))), false},
      {frame6(ipv6(60, seven)), true},
      {frame6(ipv6(60, eight)), true},
      {frame6(ipv6(60, nine)), false},
      {frame6(ipv6(60, concat(extension(kUdp, 120), ours))), true},
      {frame6(ipv6(51, concat(extension(kUdp), ours))), false},
      {frame6(ipv6(59, ours)), false},
  };
}

std::vector<Case> fragments() {
  const Bytes ours = datagram(9, kOpenUdp), foreign = datagram(9, kForeign), rest(40);
  return {
      // Later fragments follow the first, by identification; before it they are the kernel's.
      {fragment4(rest, kUdp, 1, 4), false},
      {fragment4(ours, kUdp, 1, 0x2000), true},
      {fragment4(rest, kUdp, 1, 4), true},
      {fragment4(rest, kUdp, 1, 0x2000 | 9), true},
      {fragment4(rest, kUdp, 2, 4), false},
      {fragment4(rest, kTcp, 1, 4), false},
      {fragment4(foreign, kUdp, 3, 0x2000), false},
      {fragment4(rest, kUdp, 3, 4), false},
      // The same identification again, for somebody else now.
      {fragment4(foreign, kUdp, 1, 0x2000), false},
      {fragment4(rest, kUdp, 1, 4), false},
      {fragment6(ours, kUdp, 7, 1), true},
      {fragment6(rest, kUdp, 7, 32), true},
      {fragment6(rest, 60, 7, 64 | 1), true},  // only the first one's next header counts
      {fragment6(rest, kUdp, 8, 32), false},
      {fragment6(foreign, kUdp, 7, 1), false},
      {fragment6(rest, kUdp, 7, 32), false},
      {fragment6(ours, kUdp, 9, 0), true},  // atomic
      {fragment6(rest, kUdp, 9, 32), false},
      {fragment4(Bytes(32, 3), 1, 4, 0x2000), false},
      // The ports are not in the first fragment.
      {fragment6(extension(kUdp), 60, 10, 1), false},
      {fragment6(rest, 60, 10, 8), false},
  };
}

std::vector<Case> icmp_errors() {
  const Bytes cut = [] {
    Bytes frame = error4(3, kUdp, kOpenUdp);
    frame.resize(14 + 20 + 8 + 20 + 3);
    return frame;
  }();
  const Bytes later = [] {
    Bytes quoted = ipv4(kUdp, datagram(kOpenUdp, 9), kOwn4, kPeer4);
    wire::store16(&quoted[6], 4);
    return frame4(icmp(false, 3, 4, 0, quoted));
  }();
  const auto of_fragment6 = [](uint32_t fragment_word) {
    Bytes header = {kUdp, 0, 0, 0, 0, 0, 0, 1};
    wire::store16(&header[2], fragment_word);
    const Bytes upper = concat(header, datagram(kOpenUdp, 9));
    return frame6(icmp(true, 2, 0, 1280, ipv6(44, upper, kOwn6, kPeer6)));
  };
  const Bytes options = with_options4(ipv4(kTcp, segment(kOpenTcp, 9), kOwn4, kPeer4), 3);
  return {
      {error4(3, kUdp, kOpenUdp), true},
      {error4(11, kTcp, kOpenTcp), true},
      {error4(12, kTcp, kOpenTcp), true},
      {error4(5, kTcp, kOpenTcp), false},
      {error4(3, kTcp, kForeign), false},
      {error4(3, kTcp, kOpenUdp), false},
      {error4(3, 1, kOpenUdp), false},
      {error4(3, kUdp, kOpenUdp, kElse4), false},
      {error6(1, kUdp, kOpenUdp), true},
      {error6(2, kTcp, kOpenTcp), true},
      {error6(3, kUdp, kOpenUdp), true},
      {error6(4, kTcp, kOpenTcp), true},
      {error6(0, kUdp, kOpenUdp), false},
      {error6(5, kUdp, kOpenUdp), false},
      {error6(1, kUdp, kForeign), false},
      {error6(1, kUdp, kOpenUdp, kElse6), false},
      {cut, false},
      {later, false},
      {of_fragment6(1), true},
      {of_fragment6(0x21), false},
      {frame4(icmp(false, 3, 0, 0, options)), true},
  };
}

void golden_frames_go_where_they_should(const Bench& bench) {
  for (const auto& cases : {whole_packets(), extension_headers(), fragments(), icmp_errors()}) {
    Model model;
    size_t index = 0;
    for (const auto& [frame, ours] : cases) {
      const bool program = bench.is_ours(frame);
      const bool modelled = model.is_ours(frame);
      if (program != ours || modelled != ours) {
        std::fprintf(stderr, "frame %zu of %zu: program %d, model %d\n", index, cases.size(),
                     program, modelled);
      }
      CHECK(program == ours && modelled == ours);
      ++index;
    }
  }
}

void every_cut_is_judged_alike(const Bench& bench) {
  Model model;
  for (const auto& cases : {whole_packets(), extension_headers(), fragments(), icmp_errors()}) {
    for (const auto& [frame, ours] : cases) {
      for (size_t length = 14; length < frame.size() && length < 160; ++length) {
        const Bytes cut(frame.begin(), frame.begin() + static_cast<ptrdiff_t>(length));
        CHECK(bench.is_ours(cut) == model.is_ours(cut));
      }
    }
  }
}

void random_frames_are_judged_alike(const Bench& bench) {
  std::mt19937 random(20'261);
  std::vector<Bytes> seeds;
  for (const auto& cases : {whole_packets(), extension_headers(), fragments(), icmp_errors()}) {
    for (const auto& [frame, ours] : cases) seeds.push_back(frame);
  }
  // Values that mean something somewhere, so that a changed byte often leads to another branch.
  const std::array<uint8_t, 18> telling = {0,  1,  2,  3,  4,    6,    8,    11,  17,
                                           43, 44, 58, 60, 0x20, 0x45, 0x60, 255, 128};
  // The program remembers datagrams of the tests before; what can be told apart from them is told.
  Model model;
  size_t ours = 0;
  constexpr int kRounds = 60'000;
  for (int round = 0; round < kRounds; ++round) {
    Bytes frame = seeds[random() % seeds.size()];
    for (size_t at = 14; at + 8 < frame.size() && at < 60; ++at) {
      // Every round's fragments belong to a few peers of their own.
      if (frame[at] == 2 && frame[at - 1] == 0)
        frame[at] = static_cast<uint8_t>(100 + random() % 3);
    }
    for (uint32_t changes = random() % 4; changes > 0; --changes) {
      const size_t at = 12 + random() % (frame.size() - 12);
      frame[at] = random() % 4 == 0 ? static_cast<uint8_t>(random()) : telling[random() % 18];
    }
    if (random() % 8 == 0) frame.resize(14 + random() % (frame.size() - 13));
    const bool modelled = model.is_ours(frame);
    CHECK(bench.is_ours(frame) == modelled);
    ours += modelled;
  }
  CHECK(ours > kRounds / 20 && ours < kRounds);
  for (int round = 0; round < 10'000; ++round) {
    Bytes frame(14 + random() % 120);
    for (uint8_t& byte : frame) byte = static_cast<uint8_t>(random());
    frame[0] &= 0xfe;
    wire::store16(&frame[12], round % 2 == 0 ? 0x0800 : 0x86dd);
    CHECK(bench.is_ours(frame) == model.is_ours(frame));
  }
}

void ports_open_and_close(Bench& bench) {
  for (const uint16_t port : {uint16_t{0}, uint16_t{63}, uint16_t{64}, uint16_t{65'535}}) {
    const Bytes udp_frame = frame4(ipv4(kUdp, datagram(9, port)));
    const Bytes tcp_frame = frame6(ipv6(kTcp, segment(9, port)));
    CHECK(!bench.is_ours(udp_frame) && !bench.is_ours(tcp_frame));
    CHECK(bench.program.set_port(kUdp, port, true) == 0);
    CHECK(bench.is_ours(udp_frame) && !bench.is_ours(tcp_frame));
    CHECK(bench.program.set_port(kTcp, port, true) == 0);
    CHECK(bench.program.set_port(kUdp, port, false) == 0);
    CHECK(!bench.is_ours(udp_frame) && bench.is_ours(tcp_frame));
    CHECK(bench.program.set_port(kTcp, port, false) == 0);
    CHECK(!bench.is_ours(tcp_frame));
  }
  CHECK(bench.program.set_port(132, 1, true) == EINVAL);
}

void a_queue_without_a_socket_is_the_kernels(Bench& bench) {
  const Bytes frame = frame4(ipv4(kUdp, datagram(9, kOpenUdp)));
  CHECK(bench.is_ours(frame));
  CHECK(bench.program.clear_socket(0) == 0);
  CHECK(!bench.is_ours(frame));
  CHECK(bench.program.set_socket(0, bench.socket.fd()) == 0);
}

void the_assembler_refuses_a_label_that_is_nowhere() {
  bpf::Assembler code;
  code.jump(code.label());
  code.exit();
  CHECK(code.finish().empty());
}

void the_verifiers_words_are_kept() {
  bpf::Assembler code;
  code.alu(BPF_MOV, 0, 5);  // r5 has never been written
  code.exit();
  const bpf::Made made = bpf::load_xdp_program(code.finish(), "apo_bad");
  CHECK(!made.fd && made.error == EACCES && made.words.find("R5 !read_ok") != std::string::npos);
}

}  // namespace

int main() {
  the_assembler_refuses_a_label_that_is_nowhere();
  Bench bench;
  if (!bench.open()) {
    std::printf("skipped: the XDP program's frames (loading a program needs root)\n");
    return 0;
  }
  the_verifiers_words_are_kept();
  golden_frames_go_where_they_should(bench);
  ports_open_and_close(bench);
  a_queue_without_a_socket_is_the_kernels(bench);
  every_cut_is_judged_alike(bench);
  random_frames_are_judged_alike(bench);
}
