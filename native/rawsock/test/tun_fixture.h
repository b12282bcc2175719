// A network namespace and tun links in it, for the tests of the tun link.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>

#include <cstdio>
#include <string>

#include "link_harness.h"
#include "links/tun_link.h"
#include "util/ip_endpoint.h"
#include "util/netlink.h"

namespace apo::test {

// A namespace of this process's own; false, with a line that says so, where this user may not.
inline bool enter_namespace(const char* test) {
  if (::unshare(CLONE_NEWNET) == 0 || ::unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0) return true;
  std::printf("%s: no network namespace for this user: nothing tested\n", test);
  return false;
}

inline LinkSettings tun_settings(const char* device = "test%d") {
  LinkSettings settings;
  settings.set("device", std::string(device));
  settings.set("hostAddress", std::string("10.0.0.2/24, fd00::2/64"));
  CHECK(settings.addresses.add({{IpAddress::from_bytes(4, kOwn4), 24}, false}));
  CHECK(settings.addresses.add({{IpAddress::from_bytes(6, kOwn6), 64}, false}));
  return settings;
}

// One of the kernel's own UDP sockets; `send` and `receive` say how many bytes.
class KernelSocket {
 public:
  KernelSocket(const char* address, uint16_t port, int type = SOCK_DGRAM) {
    const IpEndpoint local = *IpEndpoint::parse(address, port);
    fd = UniqueFd(::socket(local.is_v6() ? AF_INET6 : AF_INET, type | SOCK_NONBLOCK, 0));
    const int one = 1;
    CHECK(::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0);
    CHECK(::bind(fd.get(), local.raw(), local.raw_length()) == 0);
  }
  ssize_t send(const char* to, uint16_t port, const Bytes& bytes) const {
    const IpEndpoint peer = *IpEndpoint::parse(to, port);
    return ::sendto(fd.get(), bytes.data(), bytes.size(), 0, peer.raw(), peer.raw_length());
  }
  // What comes within a second; empty: nothing.
  [[nodiscard]] Bytes receive() const {
    pollfd entry = {fd.get(), POLLIN, 0};
    if (::poll(&entry, 1, 1000) != 1) return {};
    Bytes bytes(65'536);
    const ssize_t got = ::recv(fd.get(), bytes.data(), bytes.size(), 0);
    CHECK(got >= 0);
    bytes.resize(static_cast<size_t>(got));
    return bytes;
  }

  UniqueFd fd;
};

// The next packet of a version and protocol; the kernel's own noise (multicast reports, the end of a
// connection of the test before) is passed over.
inline LinkHarness::Received next_packet(LinkHarness& harness, bool six, uint8_t protocol) {
  while (harness.wait()) {
    for (LinkHarness::Received& one : harness.receive(1)) {
      const bool is_six = one.bytes[0] >> 4 == 6;
      if (is_six == six && one.bytes[six ? 6 : 9] == protocol) return std::move(one);
    }
  }
  CHECK(!"a packet came in time");
  return {};
}

}  // namespace apo::test
