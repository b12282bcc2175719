#include "links/xdp_ports.h"

#include <linux/filter.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "wire/ipv6.h"

namespace apo {
namespace {

// Keeps nothing of what reaches a guard.
void drop_everything(int socket) {
  sock_filter drop = BPF_STMT(BPF_RET | BPF_K, 0);
  const sock_fprog filter = {1, &drop};
  (void)setsockopt(socket, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter);
}

bool is_link_local(const IpAddress& address) {
  return address.version == 6 && address.bytes[0] == 0xfe && (address.bytes[1] & 0xc0) == 0x80;
}

}  // namespace

int XdpPorts::bind_guard(const IpAddress& address, uint8_t protocol, uint16_t port,
                         UniqueFd& socket) const {
  const int family = address.version == 4 ? AF_INET : AF_INET6;
  const bool tcp = protocol == wire::ip_protocol::kTcp;
  socket = UniqueFd(::socket(family, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0));
  if (!socket) return errno;
  const int yes = 1;
  int result = 0;
  // An address that is being checked for duplicates, or has gone for a while, counts as well.
  if (address.version == 4) {
    (void)setsockopt(socket.get(), IPPROTO_IP, IP_FREEBIND, &yes, sizeof yes);
    sockaddr_in name = {};
    name.sin_family = AF_INET;
    name.sin_port = htons(port);
    std::memcpy(&name.sin_addr, address.bytes.data(), 4);
    result = bind(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name);
  } else {
    (void)setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof yes);
    (void)setsockopt(socket.get(), IPPROTO_IPV6, IPV6_FREEBIND, &yes, sizeof yes);
    sockaddr_in6 name = {};
    name.sin6_family = AF_INET6;
    name.sin6_port = htons(port);
    std::memcpy(&name.sin6_addr, address.bytes.data(), 16);
    if (is_link_local(address)) name.sin6_scope_id = static_cast<uint32_t>(interface_index_);
    result = bind(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name);
  }
  if (result < 0) return errno;
  if (!tcp) drop_everything(socket.get());
  return 0;
}

int XdpPorts::guard(uint8_t protocol, uint16_t port, std::vector<UniqueFd>& sockets) const {
  for (size_t i = 0; i < addresses_.size(); ++i) {
    UniqueFd socket;
    const int error = bind_guard(addresses_.at(i).prefix.address, protocol, port, socket);
    if (error != 0) return error;
    sockets.push_back(std::move(socket));
  }
  return 0;
}

int XdpPorts::open(uint8_t protocol, uint16_t port) {
  const bool is_echo = protocol == wire::ip_protocol::kIcmp;
  const bool is_known =
      is_echo || protocol == wire::ip_protocol::kTcp || protocol == wire::ip_protocol::kUdp;
  if (!is_known || (port == 0 && !is_echo)) return EINVAL;
  const std::lock_guard lock(mutex_);
  if (shut_) return ENODEV;
  Guarded& guarded = guarded_[{protocol, port}];
  if (guarded.users > 0) {
    ++guarded.users;
    return 0;
  }
  int error = is_echo ? 0 : guard(protocol, port, guarded.sockets);
  if (error == 0) error = program_.set_port(protocol, port, true);
  if (error != 0) {
    guarded_.erase({protocol, port});
    return error;
  }
  guarded.users = 1;
  return 0;
}

void XdpPorts::close(uint8_t protocol, uint16_t port) {
  const std::lock_guard lock(mutex_);
  const auto found = guarded_.find({protocol, port});
  if (found == guarded_.end() || --found->second.users > 0) return;
  // The kernel gets the port's packets first, and only then may give it to somebody.
  (void)program_.set_port(protocol, port, false);
  guarded_.erase(found);
}

void XdpPorts::shut() {
  const std::lock_guard lock(mutex_);
  shut_ = true;
  for (const auto& [key, guarded] : guarded_) {
    (void)program_.set_port(key.first, key.second, false);
  }
  guarded_.clear();
}

}  // namespace apo
