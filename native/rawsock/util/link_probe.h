// What this process may do of what the links need, found out by doing it where that leaves no trace:
// descriptors are closed at once, no device is made, no program is attached.
#pragma once

#include <cstdint>

namespace apo {

// Each is 0 or the errno that the kernel answered with.
struct LinkProbe {
  int tun_open = 0;        // open("/dev/net/tun")
  int tun_features = 0;    // TUNGETFEATURES on it
  int packet_socket = 0;   // socket(AF_PACKET, SOCK_RAW, 0): receives nothing
  int xdp_socket = 0;      // socket(AF_XDP, SOCK_RAW, 0)
  int bpf_map = 0;         // bpf(BPF_MAP_CREATE) of an array with one entry
  int xdp_program = 0;     // bpf(BPF_PROG_LOAD) of an XDP program that passes everything
  uint32_t tun_flags = 0;  // what TUNGETFEATURES told: IFF_VNET_HDR, IFF_MULTI_QUEUE
};

[[nodiscard]] LinkProbe probe_links();

}  // namespace apo
