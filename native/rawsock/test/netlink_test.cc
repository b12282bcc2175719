// The rtnetlink socket against the kernel, in a network namespace of its own.
#include "util/netlink.h"

#include <net/if.h>
#include <sched.h>

#include <cerrno>
#include <vector>

#include "check.h"

namespace {

using namespace apo;

constexpr uint8_t kFour[4] = {10, 9, 0, 1};
constexpr uint8_t kFourNet[4] = {10, 8, 0, 0};
constexpr uint8_t kSix[16] = {0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
constexpr uint8_t kSixNet[16] = {0xfd, 8};

const IpAddress four = IpAddress::from_bytes(4, kFour);
const IpAddress six = IpAddress::from_bytes(6, kSix);
const IpAddress four_net = IpAddress::from_bytes(4, kFourNet);
const IpAddress six_net = IpAddress::from_bytes(6, kSixNet);

std::vector<IpAddress> addresses(NetlinkSocket& netlink, int index) {
  std::vector<IpAddress> found;
  ifaddrmsg any = {};
  NetlinkRequest get(RTM_GETADDR, 0, any);
  CHECK(netlink.dump(get, [&](const NetlinkMessage& message) {
    const auto header = message.header<ifaddrmsg>();
    const auto address = message.address<ifaddrmsg>(IFA_ADDRESS);
    CHECK(message.type() == RTM_NEWADDR && header && address);
    if (static_cast<int>(header->ifa_index) == index) found.push_back(*address);
  }) == 0);
  return found;
}

bool contains(const std::vector<IpAddress>& all, const IpAddress& one) {
  for (const IpAddress& address : all) {
    if (address == one) return true;
  }
  return false;
}

void request_sizes() {
  NetlinkRequest request(RTM_NEWLINK, 0, ifinfomsg{});
  const size_t nested = request.begin(1);
  request.attribute(2, 0x01020304u);
  request.end(nested);
  CHECK(request.fits());
  const auto* bytes = reinterpret_cast<const uint8_t*>(request.header());
  const std::span<const uint8_t> run(
      bytes + sizeof(nlmsghdr) + sizeof(ifinfomsg),
      request.header()->nlmsg_len - sizeof(nlmsghdr) - sizeof(ifinfomsg));
  const auto inner = NetlinkMessage::attribute_in(run, 1);
  CHECK(inner.size() == 8);
  CHECK(NetlinkMessage::attribute_in(inner, 2).size() == 4);
  CHECK(NetlinkMessage::attribute_in(inner, 3).empty());
  const std::vector<uint8_t> much(NetlinkRequest::kMaxBytes);
  request.attribute(4, much.data(), much.size());
  CHECK(!request.fits());
  NetlinkSocket netlink;
  CHECK(netlink.open() == 0);
  CHECK(netlink.request(request) == EMSGSIZE);
}

// Attributes whose lengths lie end the search, and nothing is read behind them.
void lying_attributes() {
  const uint8_t too_long[8] = {9, 0, 1, 0, 0xaa, 0xaa, 0xaa, 0xaa};
  CHECK(NetlinkMessage::attribute_in(too_long, 1).empty());
  const uint8_t too_short[8] = {3, 0, 1, 0, 8, 0, 1, 0};
  CHECK(NetlinkMessage::attribute_in(too_short, 1).empty());
  const uint8_t unpadded[5] = {5, 0, 1, 0, 0xaa};
  CHECK(NetlinkMessage::attribute_in(unpadded, 1).size() == 1);
  CHECK(NetlinkMessage::attribute_in(unpadded, 2).empty());
  const NetlinkMessage empty(RTM_NEWLINK, std::span<const uint8_t>(too_short, 3));
  CHECK(!empty.header<ifinfomsg>());
  CHECK(empty.attribute<ifinfomsg>(1).empty());
}

void configuration() {
  NetlinkSocket netlink;
  CHECK(netlink.open() == 0);
  InterfaceFacts lo;
  CHECK(netlink.find_interface("none", lo) == ENODEV);
  CHECK(netlink.find_interface("a-name-that-is-too-long", lo) == ENODEV);
  CHECK(netlink.find_interface("lo", lo) == 0);
  CHECK(lo.index == 1 && lo.name == "lo" && (lo.flags & IFF_UP) == 0 && lo.mtu > 0);

  NetlinkSocket news;
  CHECK(news.open(RTMGRP_IPV4_IFADDR) == 0);
  CHECK(netlink.set_mtu(lo.index, 9000) == 0);
  CHECK(netlink.without_link_local_address(lo.index) == 0);
  CHECK(netlink.interface_up(lo.index) == 0);
  CHECK(netlink.find_interface("lo", lo) == 0);
  CHECK((lo.flags & IFF_UP) != 0 && lo.mtu == 9000);

  CHECK(netlink.add_address(lo.index, four, 24) == 0);
  CHECK(netlink.add_address(lo.index, four, 24) == EEXIST);
  CHECK(netlink.add_address(lo.index, six, 64) == 0);
  CHECK(contains(addresses(netlink, lo.index), four));
  CHECK(contains(addresses(netlink, lo.index), six));
  bool told = false;
  CHECK(news.events([&](const NetlinkMessage& message) {
    const auto address = message.address<ifaddrmsg>(IFA_LOCAL);
    told = told || (message.type() == RTM_NEWADDR && address && *address == four);
  }) == 0);
  CHECK(told);

  for (const auto& [net, bits] : {std::pair{four_net, 16}, {six_net, 32}}) {
    const auto prefix_bits = static_cast<uint8_t>(bits);
    CHECK(netlink.add_route(lo.index, net, prefix_bits) == 0);
    CHECK(netlink.add_route(lo.index, net, prefix_bits) == EEXIST);
    CHECK(netlink.delete_route(lo.index, net, prefix_bits) == 0);
    CHECK(netlink.delete_route(lo.index, net, prefix_bits) == ESRCH);
  }
  CHECK(netlink.delete_address(lo.index, four, 24) == 0);
  CHECK(netlink.delete_address(lo.index, four, 24) == EADDRNOTAVAIL);
  CHECK(netlink.delete_address(lo.index, six, 64) == 0);
  CHECK(!contains(addresses(netlink, lo.index), six));
}

}  // namespace

int main() {
  request_sizes();
  lying_attributes();
  if (::unshare(CLONE_NEWNET) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) {
    std::puts("netlink_test: no network namespace for this user: configuration not tested");
    return 0;
  }
  configuration();
  return 0;
}
