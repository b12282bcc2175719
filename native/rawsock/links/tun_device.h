// A TUN device and its place in the kernel's network: made or opened, given addresses, routes and
// an MTU, and taken away again.
//
// A device that is made here is not persistent: the kernel removes it, with all that belongs to it,
// when its last descriptor is closed, however the process ends. On one that was there before, what
// was added is removed by `remove`; after a kill that stays, and is found and used the next time.
#pragma once

#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "links/link.h"
#include "links/link_kinds.h"
#include "util/netlink.h"
#include "util/unique_fd.h"

namespace apo {

// What a descriptor of /dev/net/tun is attached to.
struct TunFacts {
  std::string name;
  bool ethernet = false;  // TAP
  // Four bytes before each packet: not IFF_NO_PI. Known of this network namespace's devices alone.
  bool packet_information = false;
  bool persistent = false;
  size_t header_bytes = 0;  // of virtio_net_hdr; 0: none
};

// nullopt: no such descriptor, or not attached.
[[nodiscard]] std::optional<TunFacts> tun_facts(int fd);

// Has the kernel hand over unfinished checksums and super-packets, as much of it as it knows.
// Returns what it takes from us in turn.
[[nodiscard]] LinkFeatures set_tun_offloads(int fd);

class TunDevice {
 public:
  struct Options {
    std::string name;  // may have one "%d"
    size_t queues = 1;
    std::optional<uint32_t> mtu;
    AddressSet own;
    std::vector<IpPrefix> host;  // the kernel's addresses on it
  };

  TunDevice() = default;
  TunDevice(const TunDevice&) = delete;
  TunDevice& operator=(const TunDevice&) = delete;
  ~TunDevice() { remove(); }

  // 0, or an errno: `step` then says of what.
  [[nodiscard]] int open(const Options& options);
  // Undoes what was added to a device that stays. Idempotent; from any thread.
  void remove();

  [[nodiscard]] const std::string& step() const { return step_; }
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] uint32_t mtu() const { return mtu_; }
  [[nodiscard]] size_t header_bytes() const { return header_bytes_; }
  [[nodiscard]] LinkFeatures features() const { return features_; }
  // One a queue, nonblocking; theirs who takes them.
  [[nodiscard]] std::vector<UniqueFd>& descriptors() { return descriptors_; }

 private:
  [[nodiscard]] int attach(const Options& options);
  [[nodiscard]] int configure(const Options& options);
  [[nodiscard]] int check_own(const AddressSet& own);
  [[nodiscard]] int ensure_mtu(const InterfaceFacts& facts, std::optional<uint32_t> mtu);
  [[nodiscard]] int ensure_address(const IpPrefix& host);
  // The kernel begins to take packets to a new IPv6 address a little after it was added.
  void wait_until_local(const IpAddress& address);
  [[nodiscard]] int ensure_route(IpPrefix to);
  [[nodiscard]] bool has_address(const IpPrefix& host, bool on_any_interface);
  [[nodiscard]] bool has_route(const IpPrefix& to);
  [[nodiscard]] int failed(int error, const char* step);

  std::string step_;
  std::string name_;
  uint32_t mtu_ = 1500;
  size_t header_bytes_ = 0;
  LinkFeatures features_;
  std::vector<UniqueFd> descriptors_;
  NetlinkSocket netlink_;
  int index_ = 0;
  bool persistent_ = false;

  std::mutex remove_mutex_;
  std::vector<IpPrefix> added_addresses_;
  std::vector<IpPrefix> added_routes_;
  std::optional<uint32_t> mtu_before_;
};

}  // namespace apo
