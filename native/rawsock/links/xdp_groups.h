// The multicast groups that the `xdp` link has joined. It shares the interface with the kernel, which
// knows the network card's filters and speaks IGMP and MLD: so a socket of the kernel's joins each,
// bound to nothing and never read, and the XDP program takes the datagrams to our ports from there.
//
// May be used by every thread.
#pragma once

#include <cstdint>
#include <list>
#include <mutex>
#include <optional>

#include "ip/ip_address.h"
#include "links/xdp_program.h"
#include "util/unique_fd.h"

namespace apo {

class XdpGroups {
 public:
  XdpGroups(XdpProgram& program, int interface_index)
      : program_(program), interface_index_(interface_index) {}

  // 0 or an errno. Each is taken back by a leave.
  [[nodiscard]] int join(const IpAddress& group, const IpAddress* source);
  void leave(const IpAddress& group, const IpAddress* source);
  // Leaves all.
  void shut();

 private:
  struct Member {
    IpAddress group;
    std::optional<IpAddress> source;
    uint32_t users = 0;
    UniqueFd socket;
  };

  XdpProgram& program_;
  const int interface_index_;
  std::mutex mutex_;
  std::list<Member> members_;
};

}  // namespace apo
