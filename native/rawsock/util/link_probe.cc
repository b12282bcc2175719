#include "util/link_probe.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "util/unique_fd.h"

#ifndef AF_XDP
#define AF_XDP 44
#endif

namespace apo {
namespace {

int try_socket(int family) {
  const UniqueFd socket(::socket(family, SOCK_RAW | SOCK_CLOEXEC, 0));
  return socket ? 0 : errno;
}

int try_bpf(bpf_cmd command, bpf_attr& attributes) {
  const long fd = ::syscall(SYS_bpf, command, &attributes, sizeof attributes);
  if (fd < 0) return errno;
  const UniqueFd made(static_cast<int>(fd));
  return 0;
}

int try_bpf_map() {
  bpf_attr attributes;
  std::memset(&attributes, 0, sizeof attributes);
  attributes.map_type = BPF_MAP_TYPE_ARRAY;
  attributes.key_size = 4;
  attributes.value_size = 4;
  attributes.max_entries = 1;
  return try_bpf(BPF_MAP_CREATE, attributes);
}

int try_xdp_program() {
  bpf_insn instructions[2];
  std::memset(instructions, 0, sizeof instructions);
  instructions[0].code = BPF_ALU64 | BPF_MOV | BPF_K;  // r0 = XDP_PASS
  instructions[0].imm = XDP_PASS;
  instructions[1].code = BPF_JMP | BPF_EXIT;
  static const char kLicense[] = "MIT";
  bpf_attr attributes;
  std::memset(&attributes, 0, sizeof attributes);
  attributes.prog_type = BPF_PROG_TYPE_XDP;
  attributes.insn_cnt = 2;
  attributes.insns = reinterpret_cast<uintptr_t>(instructions);
  attributes.license = reinterpret_cast<uintptr_t>(kLicense);
  return try_bpf(BPF_PROG_LOAD, attributes);
}

}  // namespace

LinkProbe probe_links() {
  LinkProbe probe;
  const UniqueFd tun(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  probe.tun_open = tun ? 0 : errno;
  if (!tun) {
    probe.tun_features = probe.tun_open;
  } else if (::ioctl(tun.get(), TUNGETFEATURES, &probe.tun_flags) != 0) {
    probe.tun_features = errno;
  }
  probe.packet_socket = try_socket(AF_PACKET);
  probe.xdp_socket = try_socket(AF_XDP);
  probe.bpf_map = try_bpf_map();
  probe.xdp_program = try_xdp_program();
  return probe;
}

}  // namespace apo
