// The XDP program of the `xdp` link, and its maps. For each frame that an interface receives it
// decides whether it is ours (bpf_redirect_map to the AF_XDP socket of its RX queue) or the kernel's
// (XDP_PASS, and nothing is changed or dropped). Ours is what goes to one of the host's own
// addresses and
//
//   * to a TCP or UDP port that is open here: the packet whole, or its first fragment, and then the
//     later fragments that follow it within 30 s (one that arrives before the first goes to the
//     kernel);
//   * or is an ICMP error that quotes a packet sent from such a port;
//   * or is an echo reply with an identifier that is open here;
//
// and what goes to a multicast group that was joined here, and to such a port.
//
// Anything else is the kernel's: ARP, neighbour discovery, echo requests, other ports, frames with a VLAN tag,
// routing headers with segments left, more extension headers than eight, and what is cut off.
#pragma once

#include <cstdint>
#include <string>

#include "ip/ip_address.h"
#include "util/bpf.h"

namespace apo {

class XdpProgram {
 public:
  static constexpr uint32_t kRxQueuesMax = 64;
  // Datagrams under way in fragments that are remembered at once.
  static constexpr uint32_t kFragmentsMax = 8192;

  // Makes the maps and loads the program. 0, or errno: then `step` and `words` say what failed.
  [[nodiscard]] int load();
  [[nodiscard]] const std::string& step() const { return step_; }
  [[nodiscard]] const std::string& words() const { return words_; }

  // 0 or an errno, all of them.
  [[nodiscard]] int add_address(const IpAddress& address);
  // A multicast group, whose datagrams are ours or the kernel's from here on.
  [[nodiscard]] int set_group(const IpAddress& group, bool joined);
  // `protocol` is 6, 17, or 1: then `port` is an echo identifier, of both IP versions. Callers take
  // turns (a port's word is read, changed and written).
  [[nodiscard]] int set_port(uint8_t protocol, uint16_t port, bool open);
  [[nodiscard]] int set_socket(uint32_t rx_queue, int socket);
  [[nodiscard]] int clear_socket(uint32_t rx_queue);

  [[nodiscard]] int fd() const { return program_.get(); }

 private:
  [[nodiscard]] int make_map(const bpf::MapShape& shape, const char* name, UniqueFd& map);

  // Array of 3 x 1,024 words of 64 bits: TCP's ports, UDP's, echo identifiers.
  UniqueFd ports_;
  UniqueFd addresses4_;  // hash: 4 bytes -> 1 (an address of ours), 2 (a group)
  UniqueFd addresses6_;  // hash: 16 bytes -> likewise
  UniqueFd fragments_;   // LRU hash: the datagram's key -> when, nanoseconds
  UniqueFd sockets_;     // XSKMAP: RX queue -> socket
  UniqueFd program_;
  std::string step_;
  std::string words_;
};

}  // namespace apo
