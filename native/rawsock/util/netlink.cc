// See netlink.h.
#include "util/netlink.h"

#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <memory>

namespace apo {
namespace {

// What the kernel puts into one read of a dump at most.
constexpr size_t kReceiveBytes = 65'536;
// The kernel answers inside the call that asks; this bounds what cannot be.
constexpr timeval kAnswerLimit = {5, 0};

sockaddr_nl kernel_address(uint32_t groups = 0) {
  sockaddr_nl address = {};
  address.nl_family = AF_NETLINK;
  address.nl_groups = groups;
  return address;
}

uint8_t family_of(const IpAddress& address) { return address.version == 4 ? AF_INET : AF_INET6; }

ifinfomsg interface_header(int index) {
  ifinfomsg header = {};
  header.ifi_family = AF_UNSPEC;
  header.ifi_index = index;
  return header;
}

}  // namespace

void NetlinkRequest::append(const void* value, size_t bytes) {
  nlmsghdr* head = header();
  const size_t end = head->nlmsg_len + NLMSG_ALIGN(bytes);
  if (end > kMaxBytes) {
    fits_ = false;
    return;
  }
  if (bytes > 0) std::memcpy(bytes_.data() + head->nlmsg_len, value, bytes);
  head->nlmsg_len = static_cast<uint32_t>(end);
}

void NetlinkRequest::attribute(uint16_t type, const void* value, size_t bytes) {
  if (bytes > kMaxBytes || header()->nlmsg_len + NLA_HDRLEN + NLMSG_ALIGN(bytes) > kMaxBytes) {
    fits_ = false;
    return;
  }
  const nlattr head = {static_cast<uint16_t>(NLA_HDRLEN + bytes), type};
  append(&head, sizeof(head));
  append(value, bytes);
}

size_t NetlinkRequest::begin(uint16_t type) {
  const size_t begun = header()->nlmsg_len;
  attribute(static_cast<uint16_t>(type | NLA_F_NESTED), nullptr, 0);
  return begun;
}

void NetlinkRequest::end(size_t begun) {
  const auto bytes = static_cast<uint16_t>(header()->nlmsg_len - begun);
  if (fits_) std::memcpy(bytes_.data() + begun, &bytes, sizeof(bytes));
}

std::span<const uint8_t> NetlinkMessage::attribute_in(std::span<const uint8_t> run, uint16_t type) {
  while (run.size() >= NLA_HDRLEN) {
    nlattr head;
    std::memcpy(&head, run.data(), sizeof(head));
    if (head.nla_len < NLA_HDRLEN || head.nla_len > run.size()) return {};
    if ((head.nla_type & NLA_TYPE_MASK) == type) {
      return run.subspan(NLA_HDRLEN, head.nla_len - NLA_HDRLEN);
    }
    run = run.subspan(std::min(run.size(), static_cast<size_t>(NLA_ALIGN(head.nla_len))));
  }
  return {};
}

int NetlinkSocket::open(uint32_t groups) {
  UniqueFd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  if (!fd) return errno;
  const int one = 1;
  // Acknowledgements without the request; filters of a dump's header are obeyed, not ignored.
  // Kernels that know neither are served by the checks on this side.
  (void)::setsockopt(fd.get(), SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one));
  (void)::setsockopt(fd.get(), SOL_NETLINK, NETLINK_GET_STRICT_CHK, &one, sizeof(one));
  if (::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &kAnswerLimit, sizeof(kAnswerLimit)) != 0) {
    return errno;
  }
  const sockaddr_nl own = kernel_address(groups);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&own), sizeof(own)) != 0) return errno;
  fd_ = std::move(fd);
  return 0;
}

int NetlinkSocket::transmit(NetlinkRequest& request) {
  if (!request.fits()) return EMSGSIZE;
  request.header()->nlmsg_seq = ++sequence_;
  const sockaddr_nl kernel = kernel_address();
  for (;;) {
    const ssize_t sent = ::sendto(fd_.get(), request.header(), request.header()->nlmsg_len, 0,
                                  reinterpret_cast<const sockaddr*>(&kernel), sizeof(kernel));
    if (sent >= 0) return 0;
    if (errno != EINTR) return errno;
  }
}

int NetlinkSocket::collect(uint32_t sequence, bool dump, const OnMessage& on_message) {
  const auto buffer = std::make_unique_for_overwrite<uint8_t[]>(kReceiveBytes);
  bool interrupted = false;
  for (;;) {
    sockaddr_nl from = {};
    socklen_t from_bytes = sizeof(from);
    const ssize_t got = ::recvfrom(fd_.get(), buffer.get(), kReceiveBytes, MSG_TRUNC,
                                   reinterpret_cast<sockaddr*>(&from), &from_bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno == EAGAIN ? ETIMEDOUT : errno;
    if (static_cast<size_t>(got) > kReceiveBytes) return EMSGSIZE;
    if (from.nl_pid != 0) continue;  // not from the kernel
    std::span<const uint8_t> left(buffer.get(), static_cast<size_t>(got));
    while (left.size() >= sizeof(nlmsghdr)) {
      nlmsghdr head;
      std::memcpy(&head, left.data(), sizeof(head));
      if (head.nlmsg_len < sizeof(head) || head.nlmsg_len > left.size()) return EBADMSG;
      const std::span<const uint8_t> body =
          left.subspan(sizeof(head), head.nlmsg_len - sizeof(head));
      left = left.subspan(std::min(left.size(), static_cast<size_t>(NLMSG_ALIGN(head.nlmsg_len))));
      if (head.nlmsg_seq != sequence) continue;  // of a group, or of a request given up
      if ((head.nlmsg_flags & NLM_F_DUMP_INTR) != 0) interrupted = true;
      if (head.nlmsg_type == NLMSG_ERROR || head.nlmsg_type == NLMSG_DONE) {
        int error = 0;
        if (body.size() >= sizeof(error)) std::memcpy(&error, body.data(), sizeof(error));
        if (error != 0) return -error;
        if (dump && head.nlmsg_type == NLMSG_ERROR) continue;
        return interrupted ? EINTR : 0;
      }
      if (head.nlmsg_type >= NLMSG_MIN_TYPE && on_message) {
        on_message(NetlinkMessage(head.nlmsg_type, body));
      }
    }
  }
}

int NetlinkSocket::request(NetlinkRequest& request) { return this->request(request, nullptr); }

int NetlinkSocket::request(NetlinkRequest& request, const OnMessage& on_message) {
  request.header()->nlmsg_flags |= NLM_F_ACK;
  if (const int error = transmit(request); error != 0) return error;
  return collect(sequence_, false, on_message);
}

int NetlinkSocket::dump(NetlinkRequest& request, const OnMessage& on_message) {
  request.header()->nlmsg_flags |= NLM_F_DUMP;
  if (const int error = transmit(request); error != 0) return error;
  return collect(sequence_, true, on_message);
}

int NetlinkSocket::events(const OnMessage& on_message) {
  const auto buffer = std::make_unique_for_overwrite<uint8_t[]>(kReceiveBytes);
  for (;;) {
    sockaddr_nl from = {};
    socklen_t from_bytes = sizeof(from);
    const ssize_t got = ::recvfrom(fd_.get(), buffer.get(), kReceiveBytes, MSG_DONTWAIT,
                                   reinterpret_cast<sockaddr*>(&from), &from_bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno == EAGAIN ? 0 : errno;
    if (from.nl_pid != 0) continue;
    std::span<const uint8_t> left(buffer.get(), static_cast<size_t>(got));
    while (left.size() >= sizeof(nlmsghdr)) {
      nlmsghdr head;
      std::memcpy(&head, left.data(), sizeof(head));
      if (head.nlmsg_len < sizeof(head) || head.nlmsg_len > left.size()) break;
      if (head.nlmsg_type >= NLMSG_MIN_TYPE) {
        const auto body = left.subspan(sizeof(head), head.nlmsg_len - sizeof(head));
        on_message(NetlinkMessage(head.nlmsg_type, body));
      }
      left = left.subspan(std::min(left.size(), static_cast<size_t>(NLMSG_ALIGN(head.nlmsg_len))));
    }
  }
}

int NetlinkSocket::find_interface(const std::string& name, InterfaceFacts& facts) {
  if (name.empty() || name.size() >= IFNAMSIZ) return ENODEV;
  NetlinkRequest get(RTM_GETLINK, 0, interface_header(0));
  get.attribute(IFLA_IFNAME, name.c_str(), name.size() + 1);
  return request(get, [&](const NetlinkMessage& message) {
    const auto header = message.header<ifinfomsg>();
    if (message.type() != RTM_NEWLINK || !header) return;
    facts.index = header->ifi_index;
    facts.flags = header->ifi_flags;
    facts.mtu = message.word<ifinfomsg>(IFLA_MTU).value_or(0);
    const std::span<const uint8_t> mac = message.attribute<ifinfomsg>(IFLA_ADDRESS);
    if (mac.size() == facts.mac.size()) std::copy(mac.begin(), mac.end(), facts.mac.begin());
    facts.name = name;
  });
}

int NetlinkSocket::interface_up(int index) {
  ifinfomsg header = interface_header(index);
  header.ifi_flags = IFF_UP;
  header.ifi_change = IFF_UP;
  NetlinkRequest set(RTM_NEWLINK, 0, header);
  return request(set);
}

int NetlinkSocket::set_mtu(int index, uint32_t mtu) {
  NetlinkRequest set(RTM_NEWLINK, 0, interface_header(index));
  set.attribute(IFLA_MTU, mtu);
  return request(set);
}

int NetlinkSocket::without_link_local_address(int index) {
  NetlinkRequest set(RTM_NEWLINK, 0, interface_header(index));
  const size_t families = set.begin(IFLA_AF_SPEC);
  const size_t six = set.begin(AF_INET6);
  const uint8_t mode = IN6_ADDR_GEN_MODE_NONE;
  set.attribute(IFLA_INET6_ADDR_GEN_MODE, &mode, sizeof(mode));
  set.end(six);
  set.end(families);
  return request(set);
}

int NetlinkSocket::address_request(uint16_t type, uint16_t flags, int index,
                                   const IpAddress& address, uint8_t prefix_bits) {
  ifaddrmsg header = {};
  header.ifa_family = family_of(address);
  header.ifa_prefixlen = prefix_bits;
  header.ifa_index = static_cast<uint32_t>(index);
  header.ifa_scope = RT_SCOPE_UNIVERSE;
  NetlinkRequest message(type, flags, header);
  message.attribute(IFA_LOCAL, address);
  message.attribute(IFA_ADDRESS, address);
  if (type == RTM_NEWADDR && address.version == 6) {
    message.attribute(IFA_FLAGS, static_cast<uint32_t>(IFA_F_NODAD));
  }
  return request(message);
}

int NetlinkSocket::add_address(int index, const IpAddress& address, uint8_t prefix_bits) {
  return address_request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, index, address, prefix_bits);
}

int NetlinkSocket::delete_address(int index, const IpAddress& address, uint8_t prefix_bits) {
  return address_request(RTM_DELADDR, 0, index, address, prefix_bits);
}

int NetlinkSocket::route_request(uint16_t type, uint16_t flags, int index, const IpAddress& to,
                                 uint8_t prefix_bits) {
  rtmsg header = {};
  header.rtm_family = family_of(to);
  header.rtm_dst_len = prefix_bits;
  header.rtm_table = RT_TABLE_MAIN;
  header.rtm_protocol = type == RTM_NEWROUTE ? RTPROT_STATIC : RTPROT_UNSPEC;
  header.rtm_scope = to.version == 4 ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  if (type == RTM_DELROUTE) header.rtm_scope = RT_SCOPE_NOWHERE;
  header.rtm_type = type == RTM_NEWROUTE ? RTN_UNICAST : RTN_UNSPEC;
  NetlinkRequest message(type, flags, header);
  if (prefix_bits > 0) message.attribute(RTA_DST, to);
  message.attribute(RTA_OIF, static_cast<uint32_t>(index));
  return request(message);
}

int NetlinkSocket::add_route(int index, const IpAddress& to, uint8_t prefix_bits) {
  return route_request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, index, to, prefix_bits);
}

int NetlinkSocket::delete_route(int index, const IpAddress& to, uint8_t prefix_bits) {
  return route_request(RTM_DELROUTE, 0, index, to, prefix_bits);
}

}  // namespace apo
