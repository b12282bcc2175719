#include "links/xdp_interface.h"

#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace apo {
namespace {

constexpr int kDumpTries = 5;

ifreq request_for(const std::string& name) {
  ifreq request;
  std::memset(&request, 0, sizeof request);
  std::strncpy(request.ifr_name, name.c_str(), sizeof request.ifr_name - 1);
  return request;
}

bool is_ethernet(int socket, const std::string& name) {
  ifreq request = request_for(name);
  return ioctl(socket, SIOCGIFHWADDR, &request) == 0 &&
         request.ifr_hwaddr.sa_family == ARPHRD_ETHER;
}

// RX queues in use, as `ethtool -l` has them; 1 for a driver that does not say.
uint32_t count_rx_queues(int socket, const std::string& name) {
  ethtool_channels channels;
  std::memset(&channels, 0, sizeof channels);
  channels.cmd = ETHTOOL_GCHANNELS;
  ifreq request = request_for(name);
  request.ifr_data = reinterpret_cast<char*>(&channels);
  if (ioctl(socket, SIOCETHTOOL, &request) < 0) return 1;
  return std::clamp<uint32_t>(channels.combined_count + channels.rx_count, 1,
                              XdpProgram::kRxQueuesMax);
}

}  // namespace

XdpInterface::Failure XdpInterface::open(const std::string& name, XdpMode mode) {
  if (Failure failure = look_up(name); failure.error != 0) return failure;
  if (const int error = program_.load(); error != 0) {
    return {error, program_.step() + (program_.words().empty() ? "" : ": " + program_.words())};
  }
  for (size_t i = 0; i < addresses_.size(); ++i) {
    const int error = program_.add_address(addresses_.at(i).prefix.address);
    if (error != 0) return {error, "bpf(BPF_MAP_UPDATE_ELEM)"};
  }
  ports_ = std::make_unique<XdpPorts>(program_, addresses_, facts_.index);
  groups_ = std::make_unique<XdpGroups>(program_, facts_.index);
  return attach(mode);
}

XdpInterface::Failure XdpInterface::look_up(const std::string& name) {
  NetlinkSocket netlink;
  if (const int error = netlink.open(); error != 0) return {error, "socket(AF_NETLINK)"};
  if (const int error = netlink.find_interface(name, facts_); error != 0) {
    return {error, "RTM_GETLINK"};
  }
  const UniqueFd any(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!any) return {errno, "socket(AF_INET)"};
  if (!is_ethernet(any.get(), name)) return {EPROTOTYPE, "hardware type"};
  if ((facts_.flags & IFF_UP) == 0) return {ENETDOWN, "interface state"};
  if (facts_.mtu > kMtuMax) return {EMSGSIZE, "MTU " + std::to_string(facts_.mtu)};
  rx_queues_ = count_rx_queues(any.get(), name);
  if (const int error = read_addresses(netlink); error != 0) return {error, "RTM_GETADDR"};
  if (addresses_.size() == 0) return {EADDRNOTAVAIL, "RTM_GETADDR"};
  const UniqueFd xdp(socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0));
  if (!xdp) return {errno, "socket(AF_XDP)"};
  return {};
}

int XdpInterface::read_addresses(NetlinkSocket& netlink) {
  for (int tries = 0; tries < kDumpTries; ++tries) {
    addresses_ = {};
    bool too_many = false;
    ifaddrmsg header = {};
    header.ifa_family = AF_UNSPEC;
    header.ifa_index = static_cast<uint32_t>(facts_.index);
    NetlinkRequest get(RTM_GETADDR, 0, header);
    const int error = netlink.dump(get, [&](const NetlinkMessage& message) {
      const auto found = message.header<ifaddrmsg>();
      if (!found || found->ifa_index != static_cast<uint32_t>(facts_.index)) return;
      auto address = message.address<ifaddrmsg>(IFA_LOCAL);
      if (!address) address = message.address<ifaddrmsg>(IFA_ADDRESS);
      if (!address) return;
      if (!addresses_.add({{*address, found->ifa_prefixlen}, false})) too_many = true;
    });
    if (error != EINTR) return error != 0 ? error : too_many ? E2BIG : 0;
  }
  return EINTR;
}

XdpInterface::Failure XdpInterface::attach(XdpMode mode) {
  const auto index = static_cast<uint32_t>(facts_.index);
  bpf::Made made;
  if (mode != XdpMode::kGeneric) {
    made = bpf::attach_xdp(program_.fd(), index, XDP_FLAGS_DRV_MODE);
    native_ = static_cast<bool>(made.fd);
  }
  // Where there is another program, or no permission, generic mode is no remedy.
  const bool is_final = native_ || made.error == EBUSY || made.error == EEXIST ||
                        made.error == EPERM || made.error == ENODEV;
  if (mode == XdpMode::kGeneric || (mode == XdpMode::kAuto && !is_final)) {
    made = bpf::attach_xdp(program_.fd(), index, XDP_FLAGS_SKB_MODE);
  }
  if (!made.fd) return {made.error, "bpf(BPF_LINK_CREATE)"};
  attachment_ = std::move(made.fd);
  return {};
}

int XdpInterface::add_socket(uint32_t rx_queue, int socket) {
  return program_.set_socket(rx_queue, socket);
}

void XdpInterface::remove_socket(uint32_t rx_queue) { (void)program_.clear_socket(rx_queue); }

void XdpInterface::detach() {
  if (ports_) ports_->shut();
  if (groups_) groups_->shut();
  const std::lock_guard lock(mutex_);
  attachment_.reset();
}

}  // namespace apo
