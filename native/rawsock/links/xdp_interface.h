// What the queues of one `xdp` link share: the interface, the program on it, the ports, and which RX
// queues have a socket.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "ip/ip_address.h"
#include "links/xdp_groups.h"
#include "links/xdp_ports.h"
#include "links/xdp_program.h"
#include "links/xdp_socket.h"
#include "util/bpf.h"
#include "util/netlink.h"

namespace apo {

enum class XdpMode : uint8_t { kAuto, kNative, kGeneric };

class XdpInterface {
 public:
  // What a frame holds besides its Ethernet header.
  static constexpr uint32_t kMtuMax = XdpSocket::kPacketBytesMax - 14;

  struct Failure {
    int error = 0;  // 0: none
    std::string step;
  };

  // Looks the interface up, loads the program and attaches it. Until a port is open and a socket is
  // there it takes no packet.
  [[nodiscard]] Failure open(const std::string& name, XdpMode mode);

  [[nodiscard]] const InterfaceFacts& facts() const { return facts_; }
  [[nodiscard]] const AddressSet& addresses() const { return addresses_; }
  [[nodiscard]] uint32_t rx_queues() const { return rx_queues_; }
  [[nodiscard]] bool is_native() const { return native_; }
  [[nodiscard]] XdpPorts& ports() { return *ports_; }
  [[nodiscard]] XdpGroups& groups() { return *groups_; }

  // From the threads of the link's queues. 0 or an errno.
  [[nodiscard]] int add_socket(uint32_t rx_queue, int socket);
  void remove_socket(uint32_t rx_queue);
  // The ports are closed and the program is detached. Idempotent.
  void detach();

 private:
  [[nodiscard]] Failure look_up(const std::string& name);
  [[nodiscard]] int read_addresses(NetlinkSocket& netlink);
  [[nodiscard]] Failure attach(XdpMode mode);

  InterfaceFacts facts_;
  AddressSet addresses_;
  uint32_t rx_queues_ = 1;
  bool native_ = false;
  XdpProgram program_;
  std::unique_ptr<XdpPorts> ports_;
  std::unique_ptr<XdpGroups> groups_;
  std::mutex mutex_;  // guards the attachment
  UniqueFd attachment_;
};

}  // namespace apo
