#include "links/xdp_groups.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace apo {
namespace {

sockaddr_storage socket_address(const IpAddress& address) {
  sockaddr_storage storage{};
  if (address.version == 4) {
    auto& four = reinterpret_cast<sockaddr_in&>(storage);
    four.sin_family = AF_INET;
    std::memcpy(&four.sin_addr, address.bytes.data(), 4);
  } else {
    auto& six = reinterpret_cast<sockaddr_in6&>(storage);
    six.sin6_family = AF_INET6;
    std::memcpy(&six.sin6_addr, address.bytes.data(), 16);
  }
  return storage;
}

int join_by(int socket, int interface_index, const IpAddress& group, const IpAddress* source) {
  const int level = group.version == 4 ? IPPROTO_IP : IPPROTO_IPV6;
  const auto index = static_cast<uint32_t>(interface_index);
  int done;
  if (source == nullptr) {
    group_req request{};
    request.gr_interface = index;
    request.gr_group = socket_address(group);
    done = setsockopt(socket, level, MCAST_JOIN_GROUP, &request, sizeof request);
  } else {
    group_source_req request{};
    request.gsr_interface = index;
    request.gsr_group = socket_address(group);
    request.gsr_source = socket_address(*source);
    done = setsockopt(socket, level, MCAST_JOIN_SOURCE_GROUP, &request, sizeof request);
  }
  return done == 0 ? 0 : errno;
}

}  // namespace

int XdpGroups::join(const IpAddress& group, const IpAddress* source) {
  const std::lock_guard lock(mutex_);
  const std::optional<IpAddress> wanted = source ? std::optional(*source) : std::nullopt;
  for (Member& member : members_) {
    if (member.group != group || member.source != wanted) continue;
    ++member.users;
    return 0;
  }
  Member member{group, wanted, 1, {}};
  const int family = group.version == 4 ? AF_INET : AF_INET6;
  member.socket = UniqueFd(::socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!member.socket) return errno;
  if (const int error = join_by(member.socket.get(), interface_index_, group, source)) return error;
  if (const int error = program_.set_group(group, true)) return error;
  members_.push_back(std::move(member));
  return 0;
}

void XdpGroups::leave(const IpAddress& group, const IpAddress* source) {
  const std::lock_guard lock(mutex_);
  const std::optional<IpAddress> wanted = source ? std::optional(*source) : std::nullopt;
  const auto found = std::ranges::find_if(members_, [&](const Member& member) {
    return member.group == group && member.source == wanted;
  });
  if (found == members_.end() || --found->users > 0) return;
  members_.erase(found);
  const bool others =
      std::ranges::any_of(members_, [&](const Member& member) { return member.group == group; });
  if (!others) (void)program_.set_group(group, false);
}

void XdpGroups::shut() {
  const std::lock_guard lock(mutex_);
  members_.clear();
}

}  // namespace apo
