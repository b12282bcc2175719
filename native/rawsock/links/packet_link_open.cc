// Opening a packet link: the interface, our hardware address, the sockets of every queue and the
// groups that they listen to.
#include <ifaddrs.h>
#include <netinet/in.h>
#include <sys/random.h>

#include <cerrno>
#include <charconv>
#include <string_view>

#include "links/packet_link.h"

namespace apo {
namespace {

constexpr int64_t kQueuesMax = 16;
constexpr int64_t kMtuMax = 65'535;

// "02:00:5e:10:00:01"; false: not that, or a group's.
bool parse_mac(std::string_view text, MacAddress& mac) {
  if (text.size() != 17) return false;
  for (size_t i = 0; i < MacAddress::kBytes; ++i) {
    const char* at = text.data() + 3 * i;
    const auto [end, error] = std::from_chars(at, at + 2, mac.bytes[i], 16);
    if (error != std::errc() || end != at + 2) return false;
    if (i + 1 < MacAddress::kBytes && text[3 * i + 2] != ':') return false;
  }
  return mac.is_station();
}

// A locally administered address, always the same for an interface and our first address there: the
// neighbours' caches stay right when the program is started anew.
MacAddress derive_mac(const MacAddress& interface, const AddressSet& addresses) {
  MacAddress mac;
  const auto add_all = [&](HalfSipHash& hash) {
    hash.add(wire::load32(interface.bytes.data()));
    hash.add(wire::load16(interface.bytes.data() + 4));
    for (size_t i = 0; addresses.size() > 0 && i < 16; i += 4) {
      hash.add(wire::load32(addresses.at(0).prefix.address.bytes.data() + i));
    }
    return hash.finish();
  };
  HalfSipHash high({0x61706f31, 1});
  HalfSipHash low({0x61706f31, 2});
  wire::store16(mac.bytes.data(), add_all(high));
  wire::store32(mac.bytes.data() + 2, add_all(low));
  mac.bytes[0] = static_cast<uint8_t>((mac.bytes[0] & 0xfc) | 2);
  return mac;
}

// What the interface must let up beside broadcast: our address, and the IPv6 groups of ours.
int join_groups(const PacketStation& shared, const AddressSet& addresses) {
  const int fd = shared.sockets.front()->sender.get();
  const int index = shared.device.index;
  if (shared.mac != shared.device.mac) {
    if (const int error = join_group(fd, index, PACKET_MR_UNICAST, shared.mac)) return error;
  }
  for (size_t i = 0; i < addresses.size(); ++i) {
    const OwnAddress& own = addresses.at(i);
    if (own.prefix.address.version != 6) continue;
    IpAddress all_nodes;
    all_nodes.version = 6;
    all_nodes.bytes[0] = 0xff;
    all_nodes.bytes[1] = 0x02;
    all_nodes.bytes[15] = 1;
    // The addresses of a whole prefix have too many groups to name.
    const uint16_t kind = own.whole ? PACKET_MR_ALLMULTI : PACKET_MR_MULTICAST;
    const IpAddress group = solicited_node(own.prefix.address);
    for (const IpAddress& one : {all_nodes, group}) {
      if (const int error = join_group(fd, index, kind, multicast_mac(one))) return error;
    }
  }
  return 0;
}

// The kernel itself has one of our addresses: it would answer for it, and reset our connections.
bool is_kernels(const AddressSet& addresses) {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return false;
  bool found = false;
  for (const ifaddrs* one = list; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr) continue;
    const int family = one->ifa_addr->sa_family;
    if (family == AF_INET) {
      const auto* four = reinterpret_cast<const sockaddr_in*>(one->ifa_addr);
      found |= addresses.contains(4, reinterpret_cast<const uint8_t*>(&four->sin_addr));
    } else if (family == AF_INET6) {
      const auto* six = reinterpret_cast<const sockaddr_in6*>(one->ifa_addr);
      found |= addresses.contains(6, six->sin6_addr.s6_addr);
    }
  }
  ::freeifaddrs(list);
  return found;
}

struct Secrets {
  SteerKey neighbours;
  uint32_t fanout = 0;
};

int open_sockets(PacketStation& shared, uint32_t queues, std::string& step) {
  for (uint32_t queue = 0; queue < queues; ++queue) {
    shared.sockets.push_back(std::make_unique<PacketSockets>());
    PacketSockets& sockets = *shared.sockets.back();
    if (const int error = sockets.open_plain(shared.device, step)) return error;
    if (const int error = sockets.open_sender(shared.device, step)) return error;
  }
  // When the interface comes up again the kernel takes sockets back into their group in the order of
  // their making: so that is the order of their places in it, too.
  for (auto& sockets : shared.sockets) {
    if (const int error = sockets->open_ring(shared.device, step)) return error;
  }
  step = "PACKET_FANOUT";
  return shared.fanout->join(shared.sockets);
}

}  // namespace

OpenedLink open_packet_link(const LinkSettings& settings) {
  auto shared = std::make_shared<PacketStation>();
  if (const int error = shared->device.find(settings.text("interface").value_or(""))) {
    return OpenedLink::failed(error, "interface");
  }
  const std::string mac = settings.text("mac").value_or("");
  if (mac.empty()) {
    shared->mac = derive_mac(shared->device.mac, settings.addresses);
  } else if (mac == "interface") {
    shared->mac = shared->device.mac;
  } else if (!parse_mac(mac, shared->mac)) {
    return OpenedLink::failed(EINVAL, "mac");
  }
  const int64_t device_mtu = std::min<int64_t>(shared->device.mtu, kMtuMax);
  const int64_t mtu = settings.integer("mtu", 1, kMtuMax, device_mtu);
  if (mtu < static_cast<int64_t>(Station::kMtuMin) || mtu > device_mtu) {
    return OpenedLink::failed(EMSGSIZE, "mtu");
  }
  if (is_kernels(settings.addresses)) return OpenedLink::failed(EADDRINUSE, "address");
  if (settings.routes.size() > NextHopTable::kRoutesMax) return OpenedLink::failed(E2BIG, "routes");

  Secrets secrets;
  if (::getrandom(&secrets, sizeof(secrets), 0) != sizeof(secrets)) {
    return OpenedLink::failed(errno, "getrandom");
  }
  shared->station.emplace(StationConfig{.mac = shared->mac,
                                        .addresses = settings.addresses,
                                        .routes = settings.routes,
                                        .mtu = static_cast<size_t>(mtu),
                                        .key = secrets.neighbours});
  shared->publish();
  const auto queues = static_cast<uint32_t>(settings.integer("queues", 1, kQueuesMax, 1));
  shared->fanout = std::make_unique<PacketFanout>(queues, secrets.fanout);
  std::string step;
  if (const int error = open_sockets(*shared, queues, step)) {
    return OpenedLink::failed(error, step);
  }
  if (const int error = join_groups(*shared, settings.addresses)) {
    return OpenedLink::failed(error, "PACKET_ADD_MEMBERSHIP");
  }
  const int64_t ring_above =
      settings.integer("ringAbove", 1, UINT32_MAX, ReceivePolicy::kRingAbove);
  OpenedLink link;
  for (uint32_t queue = 0; queue < queues; ++queue) {
    link.queues.push_back(
        std::make_shared<PacketLink>(shared, queue, static_cast<uint64_t>(ring_above)));
  }
  link.addresses = settings.addresses;
  link.device = shared->device.name;
  return link;
}

}  // namespace apo
