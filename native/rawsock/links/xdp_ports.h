// The ports that the `xdp` link takes from the kernel. Each is held by guard sockets of the kernel's
// own, one for each of the host's addresses on the interface, which are bound and never read: so that
// no other program gets the port, one that has it already is told of (EADDRINUSE), and the kernel is
// silent when a datagram reaches it after all (over another interface). Only then the XDP program
// is told.
//
// May be used by every thread.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "ip/ip_address.h"
#include "links/xdp_program.h"
#include "util/unique_fd.h"

namespace apo {

class XdpPorts {
 public:
  XdpPorts(XdpProgram& program, const AddressSet& addresses, int interface_index)
      : program_(program), addresses_(addresses), interface_index_(interface_index) {}

  // A port may be opened several times, and is closed as often. `protocol` is 6, 17, or 1 for
  // an echo identifier, which needs no guard; 0 or an errno.
  [[nodiscard]] int open(uint8_t protocol, uint16_t port);
  void close(uint8_t protocol, uint16_t port);
  // Closes all of them; none can be opened any more (ENODEV).
  void shut();

 private:
  struct Guarded {
    uint32_t users = 0;
    std::vector<UniqueFd> sockets;
  };
  using Key = std::pair<uint8_t, uint16_t>;

  [[nodiscard]] int guard(uint8_t protocol, uint16_t port, std::vector<UniqueFd>& sockets) const;
  [[nodiscard]] int bind_guard(const IpAddress& address, uint8_t protocol, uint16_t port,
                               UniqueFd& socket) const;

  XdpProgram& program_;
  const AddressSet addresses_;
  const int interface_index_;
  std::mutex mutex_;  // guards what follows, and the program's port map
  std::map<Key, Guarded> guarded_;
  bool shut_ = false;
};

}  // namespace apo
