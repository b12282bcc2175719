// The `xdp` link: AF_XDP sockets on a network interface whose addresses we share with the kernel.
//
// One object is one native thread's share: the sockets of some of the interface's RX queues, with
// the thread's own small frames as their memory (UMEM). A received packet is handed on in the very
// frame that the kernel (or the network card) wrote it to; a packet to be sent is copied into one.
// Of the interface's RX queues every one has a socket: thread i of n serves queues i, i + n, ...
//
// There are no super-packets: AF_XDP has no word for them.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "links/link.h"
#include "links/link_kinds.h"
#include "links/xdp_interface.h"
#include "links/xdp_neighbours.h"
#include "links/xdp_socket.h"

namespace apo {

struct XdpLinkOptions {
  XdpCopy copy = XdpCopy::kAuto;
  size_t mtu = 0;  // 0: the interface's
  uint32_t threads = 1;
  uint32_t thread = 0;
};

class XdpLink final : public Link, private XdpParkedFrameOwner {
 public:
  XdpLink(std::shared_ptr<XdpInterface> interface, const XdpLinkOptions& options);

  [[nodiscard]] int start(const LinkContext& context) override;
  [[nodiscard]] size_t mtu() const override { return mtu_; }
  [[nodiscard]] size_t receive(std::span<IncomingPacket> packets) override;
  void send(std::span<OutgoingPacket> packets) override;
  [[nodiscard]] uint64_t deadline_us() const override;
  void tick(uint64_t now_us) override;
  [[nodiscard]] bool prepare_sleep() override;
  void finish_sleep() override;
  [[nodiscard]] std::span<const pollfd> poll_set() override { return polled_; }
  [[nodiscard]] int open_port(uint8_t protocol, uint16_t port) override;
  void close_port(uint8_t protocol, uint16_t port) override;
  [[nodiscard]] int join_group(const IpAddress& group, const IpAddress* source) override;
  void leave_group(const IpAddress& group, const IpAddress* source) override;
  [[nodiscard]] bool reports_groups() const override { return true; }
  void close() override;

  // Whether the network card writes into our frames itself, once started.
  [[nodiscard]] bool is_zero_copy() const { return zero_copy_; }

 private:
  struct Queue {
    uint32_t index = 0;
    XdpSocket socket;
    uint32_t missing = 0;  // frames that its fill ring is short of
    uint64_t dropped = 0;  // statistics already counted
    uint64_t too_big = 0;
  };
  // Frames are named by their number in the memory; the pool's ref is `first_ref_` more.
  using FrameIndex = uint32_t;

  [[nodiscard]] int open_sockets();
  [[nodiscard]] int open_socket(Queue& queue, uint32_t fill_entries);
  [[nodiscard]] bool take_spare();
  [[nodiscard]] uint8_t* bytes_of(FrameIndex frame) const;
  size_t receive_from(Queue& queue, std::span<IncomingPacket> packets);
  void fill_up(Queue& queue);
  void shut_down();
  void flush();

  void resolved(const XdpParkedFrame& parked, const MacAddress& mac) override;
  void unreachable(const XdpParkedFrame& parked) override;

  [[nodiscard]] LinkCounter send_one(std::span<const uint8_t> packet, uint64_t now_us);
  [[nodiscard]] LinkCounter write_frame(std::span<const uint8_t> packet, const MacAddress& to,
                                        XdpParkedFrame& written);
  void transmit(const XdpParkedFrame& frame);
  [[nodiscard]] bool has_transmit_frame();
  void take_completions();
  void kick(uint64_t now_us);
  void count_statistics();
  void count(LinkCounter counter, uint64_t amount = 1) { context_->counters.add(counter, amount); }

  const std::shared_ptr<XdpInterface> interface_;
  const XdpLinkOptions options_;
  const size_t mtu_;
  const MacAddress mac_;
  std::atomic<bool> closing_{false};
  bool shut_down_ = false;
  bool zero_copy_ = false;

  std::optional<LinkContext> context_;
  std::span<uint8_t> memory_;
  uint32_t first_ref_ = 0;
  std::vector<uint8_t>
      held_;  // 1: the frame is this link's (or the kernel's), and goes back at the end
  std::vector<FrameIndex> spare_;     // for the fill rings
  std::vector<FrameIndex> sendable_;  // for packets to be sent
  uint32_t missing_ = 0;              // of all queues
  std::vector<std::unique_ptr<Queue>> queues_;
  size_t next_queue_ = 0;
  std::vector<pollfd> polled_;

  XdpNeighbours neighbours_;
  uint64_t retry_us_ = kNever;   // packets wait in the transmit ring
  uint64_t follow_us_ = kNever;  // when to look for news although nobody slept
  uint64_t count_us_ = kNever;   // when to read the kernel's own counters
};

// Settings: `interface`, `xdpMode` ("auto", "native", "generic"), `zeroCopy` ("auto", "yes", "no"),
// `queues`, `mtu`.
[[nodiscard]] OpenedLink open_xdp_link(const LinkSettings& settings);

}  // namespace apo
