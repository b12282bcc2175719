// See tun_device.h.
#include "links/tun_device.h"

#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <time.h>

#include <cerrno>
#include <cstring>

#include "wire/virtio_net_header.h"

// Since Linux 6.2; the headers that this is built with may be older than the kernel that runs it.
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

namespace apo {
namespace {

// Far longer than it takes; a machine that is slower than this loses the first packets.
constexpr int kLocalWaitMs = 500;

constexpr const char* kTunPath = "/dev/net/tun";

// All bits behind the prefix 0, as routes must have them.
IpPrefix masked(IpPrefix prefix) {
  for (size_t bit = prefix.prefix_bits; bit < prefix.address.size() * 8; ++bit) {
    prefix.address.bytes[bit / 8] &= static_cast<uint8_t>(~(0x80u >> (bit % 8)));
  }
  return prefix;
}

// Whether a TUN device of this network namespace puts four bytes before each packet. TUNGETIFF does
// not say: there IFF_NO_PI is the same bit as IFF_NOFILTER, which is set.
bool has_packet_information(const std::string& name) {
  NetlinkSocket netlink;
  if (netlink.open() != 0) return false;
  NetlinkRequest get(RTM_GETLINK, 0, ifinfomsg{});
  get.attribute(IFLA_IFNAME, name.c_str(), name.size() + 1);
  bool found = false;
  (void)netlink.request(get, [&](const NetlinkMessage& message) {
    const auto info = message.attribute<ifinfomsg>(IFLA_LINKINFO);
    const auto data = NetlinkMessage::attribute_in(info, IFLA_INFO_DATA);
    const auto value = NetlinkMessage::attribute_in(data, IFLA_TUN_PI);
    found = value.size() == 1 && value[0] != 0;
  });
  return found;
}

}  // namespace

std::optional<TunFacts> tun_facts(int fd) {
  ifreq request = {};
  if (::ioctl(fd, TUNGETIFF, &request) != 0) return std::nullopt;
  const auto flags = static_cast<unsigned short>(request.ifr_flags);
  TunFacts facts;
  facts.name.assign(request.ifr_name, ::strnlen(request.ifr_name, IFNAMSIZ));
  facts.ethernet = (flags & IFF_TAP) != 0;
  facts.packet_information = has_packet_information(facts.name);
  facts.persistent = (flags & IFF_PERSIST) != 0;
  int header_bytes = 0;
  if ((flags & IFF_VNET_HDR) != 0 && ::ioctl(fd, TUNGETVNETHDRSZ, &header_bytes) == 0) {
    facts.header_bytes = static_cast<size_t>(header_bytes);
  }
  return facts;
}

LinkFeatures set_tun_offloads(int fd) {
  constexpr unsigned long kChecksum = TUN_F_CSUM;
  constexpr unsigned long kTcp = kChecksum | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
  constexpr unsigned long kUdp = kTcp | TUN_F_USO4 | TUN_F_USO6;
  if (::ioctl(fd, TUNSETOFFLOAD, kUdp) == 0) return {true, true, true};
  if (::ioctl(fd, TUNSETOFFLOAD, kTcp) == 0) return {true, true, false};
  (void)::ioctl(fd, TUNSETOFFLOAD, kChecksum);
  // What is sent needs no agreement: a kernel with IFF_VNET_HDR takes both.
  return {true, true, false};
}

int TunDevice::failed(int error, const char* step) {
  step_ = step;
  return error;
}

int TunDevice::open(const Options& options) {
  if (options.name.empty() || options.name.size() >= IFNAMSIZ) return failed(EINVAL, "device");
  if (const int error = netlink_.open(); error != 0) return failed(error, "netlink");
  if (const int error = attach(options); error != 0) return error;
  return configure(options);
}

int TunDevice::attach(const Options& options) {
  name_ = options.name;
  const bool wants_many = options.queues > 1;
  for (size_t queue = 0; queue < options.queues; ++queue) {
    UniqueFd fd(::open(kTunPath, O_RDWR | O_CLOEXEC | O_NONBLOCK));
    if (!fd) return failed(errno, "open /dev/net/tun");
    ifreq request = {};
    std::memcpy(request.ifr_name, name_.c_str(), name_.size());
    const auto set = [&](bool many) {
      request.ifr_flags =
          static_cast<short>(IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | (many ? IFF_MULTI_QUEUE : 0));
      return ::ioctl(fd.get(), TUNSETIFF, &request) == 0 ? 0 : errno;
    };
    int error = set(wants_many);
    // A device that was made for several queues takes one, too, if it is asked so.
    if (error == EINVAL && !wants_many) error = set(true);
    if (error != 0) return failed(error, "TUNSETIFF");
    name_.assign(request.ifr_name, ::strnlen(request.ifr_name, IFNAMSIZ));
    descriptors_.push_back(std::move(fd));
  }
  const int fd = descriptors_.front().get();
  const int header_bytes = wire::kVirtioNetHeaderBytes;
  if (::ioctl(fd, TUNSETVNETHDRSZ, &header_bytes) != 0) return failed(errno, "TUNSETVNETHDRSZ");
  // Little-endian on every machine. Kernels without this know little-endian machines only.
  const int little = 1;
  (void)::ioctl(fd, TUNSETVNETLE, &little);
  header_bytes_ = wire::kVirtioNetHeaderBytes;
  features_ = set_tun_offloads(fd);
  const std::optional<TunFacts> facts = tun_facts(fd);
  persistent_ = facts && facts->persistent;
  return 0;
}

int TunDevice::configure(const Options& options) {
  InterfaceFacts facts;
  if (const int error = netlink_.find_interface(name_, facts)) return failed(error, "device");
  index_ = facts.index;
  if (const int error = check_own(options.own); error != 0) return error;
  if (const int error = ensure_mtu(facts, options.mtu); error != 0) return error;
  if ((facts.flags & IFF_UP) == 0) {
    // Spares the app router solicitations; without it the device works as well.
    (void)netlink_.without_link_local_address(index_);
    if (const int error = netlink_.interface_up(index_)) return failed(error, "device up");
  }
  for (const IpPrefix& host : options.host) {
    if (const int error = ensure_address(host); error != 0) return error;
  }
  for (size_t i = 0; i < options.own.size(); ++i) {
    const OwnAddress& own = options.own.at(i);
    IpPrefix to = own.prefix;
    if (!own.whole) {
      to.prefix_bits = static_cast<uint8_t>(to.address.size() * 8);
      bool near = false;
      for (const IpPrefix& host : options.host) {
        near = near || host.contains(to.address.version, to.address.bytes.data());
      }
      if (near) continue;  // the host address has brought a route
    }
    if (const int error = ensure_route(masked(to)); error != 0) return error;
  }
  return 0;
}

// The kernel answers for its own addresses by itself: packets to them would never come here.
int TunDevice::check_own(const AddressSet& own) {
  for (size_t i = 0; i < own.size(); ++i) {
    if (!own.at(i).whole && has_address(own.at(i).prefix, true)) {
      return failed(EADDRINUSE, "address");
    }
  }
  return 0;
}

int TunDevice::ensure_mtu(const InterfaceFacts& facts, std::optional<uint32_t> mtu) {
  mtu_ = mtu.value_or(facts.mtu);
  if (mtu_ == facts.mtu) return 0;
  if (const int error = netlink_.set_mtu(index_, mtu_)) return failed(error, "mtu");
  mtu_before_ = facts.mtu;
  return 0;
}

bool TunDevice::has_address(const IpPrefix& host, bool on_any_interface) {
  bool found = false;
  ifaddrmsg header = {};
  header.ifa_family = host.address.version == 4 ? AF_INET : AF_INET6;
  NetlinkRequest get(RTM_GETADDR, 0, header);
  const int error = netlink_.dump(get, [&](const NetlinkMessage& message) {
    const auto one = message.header<ifaddrmsg>();
    auto address = message.address<ifaddrmsg>(IFA_LOCAL);
    if (!address) address = message.address<ifaddrmsg>(IFA_ADDRESS);
    if (!one || !address || !(*address == host.address)) return;
    if (on_any_interface) found = true;
    if (static_cast<int>(one->ifa_index) == index_ && one->ifa_prefixlen == host.prefix_bits) {
      found = true;
    }
  });
  return found && (error == 0 || error == EINTR);
}

int TunDevice::ensure_address(const IpPrefix& host) {
  if (has_address(host, false)) return 0;
  const int error = netlink_.add_address(index_, host.address, host.prefix_bits);
  if (error != 0) return failed(error, "hostAddress");
  added_addresses_.push_back(host);
  if (host.address.version == 6) wait_until_local(host.address);
  return 0;
}

void TunDevice::wait_until_local(const IpAddress& address) {
  for (int attempt = 0; attempt < kLocalWaitMs; ++attempt) {
    bool local = false;
    rtmsg header = {};
    header.rtm_family = AF_INET6;
    header.rtm_dst_len = 128;
    NetlinkRequest get(RTM_GETROUTE, 0, header);
    get.attribute(RTA_DST, address);
    const int error = netlink_.request(get, [&](const NetlinkMessage& message) {
      const auto route = message.header<rtmsg>();
      local = route && route->rtm_type == RTN_LOCAL;
    });
    if (local || error != 0) return;
    const timespec pause = {0, 1'000'000};
    (void)::nanosleep(&pause, nullptr);
  }
}

bool TunDevice::has_route(const IpPrefix& to) {
  bool found = false;
  rtmsg header = {};
  header.rtm_family = to.address.version == 4 ? AF_INET : AF_INET6;
  NetlinkRequest get(RTM_GETROUTE, 0, header);
  const int error = netlink_.dump(get, [&](const NetlinkMessage& message) {
    const auto route = message.header<rtmsg>();
    if (!route || route->rtm_dst_len != to.prefix_bits || route->rtm_type != RTN_UNICAST) return;
    if (message.word<rtmsg>(RTA_OIF).value_or(0) != static_cast<uint32_t>(index_)) return;
    const auto address = message.address<rtmsg>(RTA_DST);
    found = found || (to.prefix_bits == 0 ? !address : address && *address == to.address);
  });
  return found && (error == 0 || error == EINTR);
}

int TunDevice::ensure_route(IpPrefix to) {
  const int error = netlink_.add_route(index_, to.address, to.prefix_bits);
  if (error == 0) {
    added_routes_.push_back(to);
    return 0;
  }
  // There already, by somebody who may do more than this user: as good.
  if ((error == EEXIST || error == EPERM) && has_route(to)) return 0;
  return failed(error, "route");
}

void TunDevice::remove() {
  const std::lock_guard lock(remove_mutex_);
  if (persistent_) {
    for (const IpPrefix& to : added_routes_) {
      (void)netlink_.delete_route(index_, to.address, to.prefix_bits);
    }
    for (const IpPrefix& host : added_addresses_) {
      (void)netlink_.delete_address(index_, host.address, host.prefix_bits);
    }
    if (mtu_before_) (void)netlink_.set_mtu(index_, *mtu_before_);
  }
  added_routes_.clear();
  added_addresses_.clear();
  mtu_before_.reset();
}

}  // namespace apo
