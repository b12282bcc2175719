// A rtnetlink socket (rtnetlink(7)): one request and its acknowledgement at a time, dumps with a
// call per message, and the few things that links ask of the kernel's network configuration.
//
// Every int result is 0 or an errno. All calls wait for the kernel, which answers at once; none is
// for a packet's path.
#pragma once

#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "ip/ip_address.h"
#include "util/unique_fd.h"

namespace apo {

// A message of at most `kMaxBytes`, built front to back. What does not fit is left out and makes
// the request fail with EMSGSIZE.
class NetlinkRequest {
 public:
  static constexpr size_t kMaxBytes = 1024;

  // `family_header` is what follows nlmsghdr: ifinfomsg, ifaddrmsg, rtmsg, ndmsg.
  template <typename Header>
  NetlinkRequest(uint16_t type, uint16_t flags, const Header& family_header) {
    nlmsghdr* head = header();
    head->nlmsg_type = type;
    head->nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
    head->nlmsg_len = sizeof(nlmsghdr);
    append(&family_header, sizeof(family_header));
  }

  void attribute(uint16_t type, const void* value, size_t bytes);
  void attribute(uint16_t type, uint32_t value) { attribute(type, &value, sizeof(value)); }
  void attribute(uint16_t type, const IpAddress& address) {
    attribute(type, address.bytes.data(), address.size());
  }
  // What is added until `end` goes into an attribute of this type; takes what `begin` returned.
  [[nodiscard]] size_t begin(uint16_t type);
  void end(size_t begun);

  [[nodiscard]] bool fits() const { return fits_; }
  [[nodiscard]] nlmsghdr* header() { return reinterpret_cast<nlmsghdr*>(bytes_.data()); }

 private:
  void append(const void* value, size_t bytes);

  alignas(nlmsghdr) std::array<uint8_t, kMaxBytes> bytes_{};
  bool fits_ = true;
};

// A received message: a view that is valid during the call that shows it.
class NetlinkMessage {
 public:
  NetlinkMessage(uint16_t type, std::span<const uint8_t> body) : type_(type), body_(body) {}

  [[nodiscard]] uint16_t type() const { return type_; }
  // The family's header; nullopt when the message is too short for it.
  template <typename Header>
  [[nodiscard]] std::optional<Header> header() const {
    if (body_.size() < sizeof(Header)) return std::nullopt;
    Header header;
    std::memcpy(&header, body_.data(), sizeof(header));
    return header;
  }
  // The bytes of an attribute behind a `Header`; empty when there is none (or it is empty).
  template <typename Header>
  [[nodiscard]] std::span<const uint8_t> attribute(uint16_t type) const {
    return attribute_in(body_.size() < NLMSG_ALIGN(sizeof(Header))
                            ? std::span<const uint8_t>()
                            : body_.subspan(NLMSG_ALIGN(sizeof(Header))),
                        type);
  }
  template <typename Header>
  [[nodiscard]] std::optional<uint32_t> word(uint16_t type) const {
    const std::span<const uint8_t> bytes = attribute<Header>(type);
    if (bytes.size() != sizeof(uint32_t)) return std::nullopt;
    uint32_t value = 0;
    std::memcpy(&value, bytes.data(), sizeof(value));
    return value;
  }
  // Of the version that its length says.
  template <typename Header>
  [[nodiscard]] std::optional<IpAddress> address(uint16_t type) const {
    const std::span<const uint8_t> bytes = attribute<Header>(type);
    if (bytes.size() == 4) return IpAddress::from_bytes(4, bytes.data());
    if (bytes.size() == 16) return IpAddress::from_bytes(6, bytes.data());
    return std::nullopt;
  }
  // An attribute in a run of attributes: those of a message, or those nested in one.
  [[nodiscard]] static std::span<const uint8_t> attribute_in(std::span<const uint8_t> run,
                                                             uint16_t type);

 private:
  uint16_t type_;
  std::span<const uint8_t> body_;
};

// What there is to know about an interface.
struct InterfaceFacts {
  int index = 0;
  uint32_t flags = 0;  // IFF_UP and so on
  uint32_t mtu = 0;
  std::array<uint8_t, 6> mac{};  // zeroes where there is none
  std::string name;
};

class NetlinkSocket {
 public:
  using OnMessage = std::function<void(const NetlinkMessage&)>;

  // `groups` are RTMGRP_*: news of these can then be read by `events`. Such a socket is for news
  // alone: a request on it passes over what comes in between.
  [[nodiscard]] int open(uint32_t groups = 0);
  [[nodiscard]] int fd() const { return fd_.get(); }

  // Sends, waits for the acknowledgement, and returns what it says.
  [[nodiscard]] int request(NetlinkRequest& request);
  // Likewise, with what the kernel answers before it.
  [[nodiscard]] int request(NetlinkRequest& request, const OnMessage& on_message);
  // A request of flag NLM_F_DUMP. EINTR: the table changed meanwhile; what was shown may have gaps
  // and duplicates, start over.
  [[nodiscard]] int dump(NetlinkRequest& request, const OnMessage& on_message);
  // What has come in from the groups; does not wait (poll `fd`). ENOBUFS: some was lost, dump the tables again.
  [[nodiscard]] int events(const OnMessage& on_message);

  // ENODEV: no interface has that name.
  [[nodiscard]] int find_interface(const std::string& name, InterfaceFacts& facts);
  [[nodiscard]] int interface_up(int index);
  [[nodiscard]] int set_mtu(int index, uint32_t mtu);
  // No link-local address of the kernel's own on it, and so no IPv6 router solicitations. Only
  // while the interface is down.
  [[nodiscard]] int without_link_local_address(int index);
  // Without duplicate address detection. EEXIST: it is there already.
  [[nodiscard]] int add_address(int index, const IpAddress& address, uint8_t prefix_bits);
  [[nodiscard]] int delete_address(int index, const IpAddress& address, uint8_t prefix_bits);
  // A route to a whole prefix by an interface, in the main table. The bits behind the prefix must
  // be 0. EEXIST: there is one already.
  [[nodiscard]] int add_route(int index, const IpAddress& to, uint8_t prefix_bits);
  [[nodiscard]] int delete_route(int index, const IpAddress& to, uint8_t prefix_bits);

 private:
  [[nodiscard]] int transmit(NetlinkRequest& request);
  [[nodiscard]] int collect(uint32_t sequence, bool dump, const OnMessage& on_message);
  [[nodiscard]] int address_request(uint16_t type, uint16_t flags, int index,
                                    const IpAddress& address, uint8_t prefix_bits);
  [[nodiscard]] int route_request(uint16_t type, uint16_t flags, int index, const IpAddress& to,
                                  uint8_t prefix_bits);

  UniqueFd fd_;
  uint32_t sequence_ = 0;
};

}  // namespace apo
