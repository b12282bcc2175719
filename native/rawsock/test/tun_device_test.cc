// What the tun link makes in the kernel's network, and what is left of it; TUN devices handed in.
#include "links/tun_device.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include <cerrno>

#include "links/fd_link.h"
#include "tun_fixture.h"

namespace {

using namespace apo;
using namespace apo::test;

constexpr uint8_t kPrefix4[4] = {10, 5, 0, 0};
constexpr uint8_t kPrefix6[16] = {0xfd, 5};
constexpr uint8_t kKernel4[4] = {10, 0, 0, 2};

constexpr uid_t kNobody = 65'534;

UniqueFd make_tun(const char* name, int flags) {
  UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  CHECK(fd);
  ifreq request = {};
  std::strcpy(request.ifr_name, name);
  request.ifr_flags = static_cast<short>(flags);
  CHECK(::ioctl(fd.get(), TUNSETIFF, &request) == 0);
  return fd;
}

int find(const std::string& device, InterfaceFacts& facts) {
  NetlinkSocket netlink;
  CHECK(netlink.open() == 0);
  return netlink.find_interface(device, facts);
}

// How many of the kernel's addresses (or routes of the main table) are on an interface.
size_t count_on(int index, bool routes) {
  NetlinkSocket netlink;
  CHECK(netlink.open() == 0);
  size_t count = 0;
  if (routes) {
    NetlinkRequest get(RTM_GETROUTE, 0, rtmsg{});
    CHECK(netlink.dump(get, [&](const NetlinkMessage& message) {
      const auto route = message.header<rtmsg>();
      count += route && route->rtm_table == RT_TABLE_MAIN &&
                       message.word<rtmsg>(RTA_OIF) == static_cast<uint32_t>(index)
                   ? 1
                   : 0;
    }) == 0);
  } else {
    NetlinkRequest get(RTM_GETADDR, 0, ifaddrmsg{});
    CHECK(netlink.dump(get, [&](const NetlinkMessage& message) {
      const auto address = message.header<ifaddrmsg>();
      count += address && static_cast<int>(address->ifa_index) == index ? 1 : 0;
    }) == 0);
  }
  return count;
}

void refused(const LinkSettings& settings, int error, const char* step) {
  const OpenedLink opened = open_tun_link(settings);
  CHECK(opened.queues.empty() && opened.error == error && opened.step == step);
}

void prefixes_and_mtu() {
  LinkSettings settings = tun_settings();
  settings.set("mtu", 9000.0);
  CHECK(settings.addresses.add({{IpAddress::from_bytes(4, kPrefix4), 16}, true}));
  CHECK(settings.addresses.add({{IpAddress::from_bytes(6, kPrefix6), 32}, true}));
  OpenedLink opened = open_tun_link(settings);
  CHECK(opened.error == 0);
  InterfaceFacts facts;
  CHECK(find(opened.device, facts) == 0 && facts.mtu == 9000 && (facts.flags & IFF_UP) != 0);
  CHECK(count_on(facts.index, false) == 2);  // no link-local one
  CHECK(count_on(facts.index, true) == 4);   // two of the host's addresses, two of our prefixes
  LinkHarness harness(opened.queues.front());
  CHECK(harness.link().mtu() == 9000);
  const KernelSocket four("10.0.0.2", 5000);
  CHECK(four.send("10.5.200.7", 9, Bytes(8000)) == 8000);
  CHECK(next_packet(harness, false, 17).bytes.size() == 8028);
  const KernelSocket six("fd00::2", 5000);
  CHECK(six.send("fd05::1:2", 9, Bytes(8)) == 8);
  CHECK(next_packet(harness, true, 17).bytes.size() == 56);
}

// An address without a prefix is reached by a route of its own.
void single_address() {
  LinkSettings settings;
  settings.set("device", std::string("single"));
  settings.set("hostAddress", std::string("192.0.2.1/32"));
  CHECK(settings.addresses.add({{IpAddress::from_bytes(4, kOwn4), 32}, false}));
  OpenedLink opened = open_tun_link(settings);
  CHECK(opened.error == 0 && opened.device == "single");
  LinkHarness harness(opened.queues.front());
  const KernelSocket kernel("0.0.0.0", 5000);
  CHECK(kernel.send("10.0.0.1", 9, Bytes(8)) == 8);
  const Bytes packet = next_packet(harness, false, 17).bytes;
  const uint8_t source[4] = {192, 0, 2, 1};
  CHECK(std::memcmp(&packet[12], source, 4) == 0);
}

// Gone when closed, although the link's objects are still there.
void gone_when_closed() {
  OpenedLink opened = open_tun_link(tun_settings());
  CHECK(opened.error == 0);
  LinkHarness harness(opened.queues.front());
  InterfaceFacts facts;
  CHECK(find(opened.device, facts) == 0);
  opened.queues.front()->close();
  CHECK(find(opened.device, facts) == ENODEV);
  CHECK(harness.receive().empty());
  CHECK(harness.send(udp(false, 1, 2, {})) == LinkCounter::kTxDroppedLinkEnded);
  CHECK(harness.count(LinkCounter::kLinkEnded) == 0);
}

// Taken away by somebody else: ended, counted, and not polled any more.
void deleted_by_others() {
  OpenedLink opened = open_tun_link(tun_settings());
  CHECK(opened.error == 0);
  LinkHarness harness(opened.queues.front());
  InterfaceFacts facts;
  CHECK(find(opened.device, facts) == 0);
  NetlinkSocket netlink;
  CHECK(netlink.open() == 0);
  ifinfomsg header = {};
  header.ifi_index = facts.index;
  NetlinkRequest remove(RTM_DELLINK, 0, header);
  CHECK(netlink.request(remove) == 0);
  CHECK(harness.wait());
  while (harness.count(LinkCounter::kLinkEnded) == 0) CHECK(harness.receive().empty());
  pollfd polled = harness.link().poll_set().front();
  CHECK(::poll(&polled, 1, 0) == 0);
  CHECK(harness.send(udp(false, 1, 2, {})) == LinkCounter::kTxDroppedLinkEnded);
}

// The kernel does not take packets while the device is down; that passes.
void down_for_a_while() {
  OpenedLink opened = open_tun_link(tun_settings("down0"));
  CHECK(opened.error == 0);
  LinkHarness harness(opened.queues.front());
  InterfaceFacts facts;
  CHECK(find("down0", facts) == 0);
  NetlinkSocket netlink;
  CHECK(netlink.open() == 0);
  ifinfomsg header = {};
  header.ifi_index = facts.index;
  header.ifi_change = IFF_UP;
  NetlinkRequest down(RTM_NEWLINK, 0, header);
  CHECK(netlink.request(down) == 0);
  const Bytes packet = udp(false, 1, 2, {});
  CHECK(harness.send(packet) == LinkCounter::kTxDroppedRefused);
  CHECK(harness.receive().empty());
  CHECK(netlink.interface_up(facts.index) == 0);
  CHECK(harness.send(packet) == LinkCounter::kTxPackets);
  CHECK(harness.count(LinkCounter::kLinkEnded) == 0);
}

// On a device that stays, only what was added goes.
void persistent_device() {
  {
    const UniqueFd fd = make_tun("stays0", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR);
    CHECK(::ioctl(fd.get(), TUNSETPERSIST, 1) == 0);
  }
  InterfaceFacts facts;
  CHECK(find("stays0", facts) == 0);
  LinkSettings settings = tun_settings("stays0");
  settings.set("mtu", 1400.0);
  CHECK(settings.addresses.add({{IpAddress::from_bytes(4, kPrefix4), 16}, true}));
  NetlinkSocket netlink;
  CHECK(netlink.open() == 0);
  // What is there already, as after a kill, is used, and stays.
  CHECK(netlink.without_link_local_address(facts.index) == 0);
  CHECK(netlink.add_address(facts.index, IpAddress::from_bytes(4, kKernel4), 24) == 0);
  for (int round = 0; round < 2; ++round) {
    OpenedLink opened = open_tun_link(settings);
    CHECK(opened.error == 0 && opened.device == "stays0");
    CHECK(find("stays0", facts) == 0 && facts.mtu == 1400);
    CHECK(count_on(facts.index, false) == 2 && count_on(facts.index, true) == 3);
    refused(settings, EBUSY, "TUNSETIFF");
    for (auto& queue : opened.queues) queue->close();
    CHECK(find("stays0", facts) == 0 && facts.mtu == 1500);
    CHECK(count_on(facts.index, false) == 1 && count_on(facts.index, true) == 1);
  }
  const UniqueFd fd = make_tun("stays0", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR);
  CHECK(::ioctl(fd.get(), TUNSETPERSIST, 0) == 0);
}

// A device that root has prepared is enough for an ordinary user, who can change nothing on it.
void prepared_for_a_user() {
  UniqueFd fd = make_tun("user0", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR);
  CHECK(::ioctl(fd.get(), TUNSETOWNER, kNobody) == 0);
  CHECK(::ioctl(fd.get(), TUNSETPERSIST, 1) == 0);
  InterfaceFacts facts;
  CHECK(find("user0", facts) == 0);
  NetlinkSocket netlink;
  CHECK(netlink.open() == 0);
  CHECK(netlink.interface_up(facts.index) == 0);
  CHECK(netlink.add_address(facts.index, IpAddress::from_bytes(4, kKernel4), 24) == 0);
  CHECK(netlink.add_route(facts.index, IpAddress::from_bytes(4, kPrefix4), 16) == 0);
  const auto as_nobody = [](const LinkSettings& settings, int error, const char* step) {
    const pid_t child = ::fork();
    if (child == 0) {
      if (::setresuid(kNobody, kNobody, kNobody) != 0) ::_exit(3);
      const OpenedLink opened = open_tun_link(settings);
      ::_exit(opened.error == error && opened.step == step ? 0 : 1);
    }
    int status = 0;
    CHECK(child > 0 && ::waitpid(child, &status, 0) == child && WIFEXITED(status));
    if (WEXITSTATUS(status) == 3) std::puts("tun_device_test: no other user here: not tested");
    CHECK(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 3);
  };
  LinkSettings settings;
  settings.set("device", std::string("user0"));
  settings.set("hostAddress", std::string("10.0.0.2/24"));
  CHECK(settings.addresses.add({{IpAddress::from_bytes(4, kOwn4), 24}, false}));
  as_nobody(settings, EBUSY, "TUNSETIFF");
  fd.reset();
  as_nobody(settings, 0, "");
  CHECK(settings.addresses.add({{IpAddress::from_bytes(4, kPrefix4), 16}, true}));
  as_nobody(settings, 0, "");
  settings.set("mtu", 1400.0);
  as_nobody(settings, EPERM, "mtu");
  settings.set("device", std::string("other0"));
  as_nobody(settings, EPERM, "TUNSETIFF");
  fd = make_tun("user0", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR);
  CHECK(::ioctl(fd.get(), TUNSETPERSIST, 0) == 0);
}

void refusals() {
  NetlinkSocket netlink;
  CHECK(netlink.open() == 0);
  CHECK(netlink.interface_up(1) == 0);
  refused(tun_settings("a-name-that-is-too-long"), EINVAL, "device");
  refused(tun_settings("lo"), EINVAL, "TUNSETIFF");
  for (const char* text : {"10.0.0.2", "10.0.0.2/33", "10.0.0.2/x", "fd00::2/129", "nobody/24"}) {
    LinkSettings settings = tun_settings();
    settings.set("hostAddress", std::string(text));
    refused(settings, EINVAL, "hostAddress");
  }
  const IpAddress own = IpAddress::from_bytes(4, kOwn4);
  CHECK(netlink.add_address(1, own, 32) == 0);
  refused(tun_settings(), EADDRINUSE, "address");
  CHECK(netlink.delete_address(1, own, 32) == 0);
  CHECK(netlink.add_route(1, IpAddress::from_bytes(4, kPrefix4), 16) == 0);
  LinkSettings settings = tun_settings("route0");
  CHECK(settings.addresses.add({{IpAddress::from_bytes(4, kPrefix4), 16}, true}));
  refused(settings, EEXIST, "route");
  InterfaceFacts facts;
  CHECK(find("route0", facts) == ENODEV);
}

// A device of the user's own as an fd link.
void handed_in() {
  const auto open = [](int fd, double header_bytes) {
    LinkSettings settings;
    settings.set("fd", static_cast<double>(fd));
    settings.set("vnetHeaderBytes", header_bytes);
    return open_fd_link(settings);
  };
  const UniqueFd plain = make_tun("plain0", IFF_TUN | IFF_NO_PI);
  const UniqueFd header = make_tun("header0", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR);
  const UniqueFd ethernet = make_tun("tap0", IFF_TAP | IFF_NO_PI);
  const UniqueFd information = make_tun("pi0", IFF_TUN);
  const UniqueFd unattached(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  CHECK(open(plain.get(), 0).error == 0);
  CHECK(open(header.get(), 10).error == 0);
  CHECK(open(header.get(), 10).queues.front()->features().tcp_gso);
  CHECK(open(plain.get(), 10).step == "no virtio_net_hdr");
  CHECK(open(header.get(), 12).step == "virtio_net_hdr");
  CHECK(open(header.get(), 0).step == "virtio_net_hdr");
  CHECK(open(ethernet.get(), 0).step == "TAP");
  CHECK(open(information.get(), 0).step == "IFF_NO_PI");
  CHECK(open(unattached.get(), 0).step == "kind of descriptor");

  InterfaceFacts facts;
  CHECK(find("plain0", facts) == 0);
  NetlinkSocket netlink;
  CHECK(netlink.open() == 0);
  CHECK(netlink.interface_up(facts.index) == 0);
  CHECK(netlink.add_address(facts.index, IpAddress::from_bytes(4, kKernel4), 24) == 0);
  OpenedLink opened = open(plain.get(), 0);
  LinkHarness harness(opened.queues.front());
  const KernelSocket kernel("10.0.0.2", 5000);
  CHECK(kernel.send("10.0.0.1", 9, Bytes(64)) == 64);
  const auto received = next_packet(harness, false, 17);
  CHECK(is_offload(received.offload, ChecksumState::kUnchecked));
  CHECK(received.bytes.size() == 92);
}

}  // namespace

int main() {
  if (!enter_namespace("tun_device_test")) return 0;
  prefixes_and_mtu();
  single_address();
  gone_when_closed();
  deleted_by_others();
  down_for_a_while();
  persistent_device();
  prepared_for_a_user();
  refusals();
  handed_in();
  return 0;
}
