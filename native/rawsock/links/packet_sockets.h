// The sockets of one queue of the packet link (packet(7)): a plain one and one with a TPACKET_V3
// ring, members of the link's fan-out group, of which exactly one gets each frame; and one to send
// by. Every frame has a virtio_net_hdr before it, both ways.
//
// System calls and the ring's memory; what the frames are is packet_link.cc's matter.
#pragma once

#include <linux/if_packet.h>
#include <sys/socket.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "ethernet/ethernet.h"
#include "links/packet_filter.h"
#include "util/unique_fd.h"

namespace apo {

// What is done to frames that are sent, by the device or by the kernel before it.
struct InterfaceOffloads {
  bool tcp = false;  // the device cuts TCP super-packets
  bool udp = false;
};

// The interface of a name. Every int result is 0 or an errno.
struct PacketInterface {
  std::string name;
  int index = 0;
  uint32_t mtu = 0;
  MacAddress mac;
  InterfaceOffloads offloads;

  // ENODEV: there is none; EPROTOTYPE: it is no Ethernet.
  [[nodiscard]] int find(const std::string& wanted);
  // Whether it is there and up.
  [[nodiscard]] bool is_up() const;
};

// A frame in the ring; valid until the ring is moved on.
struct RingFrame {
  const uint8_t* header = nullptr;  // virtio_net_hdr
  const uint8_t* bytes = nullptr;
  size_t length = 0;
  bool whole = false;
};

class PacketRing {
 public:
  // A super-packet fits four times; 16 MB a queue.
  static constexpr size_t kBlockBytes = 256 * 1024;
  static constexpr size_t kBlocks = 64;
  static constexpr uint32_t kRetireMs = 1;

  PacketRing() = default;
  PacketRing(const PacketRing&) = delete;
  PacketRing& operator=(const PacketRing&) = delete;
  ~PacketRing();

  [[nodiscard]] int map(int fd);
  // A block is ours to read.
  [[nodiscard]] bool ready() const { return left_ > 0 || is_ours(); }
  // The next frame, in the order of arrival; false: there is none now. What the frame before it
  // pointed to is gone.
  [[nodiscard]] bool next(RingFrame& frame);
  // Hands blocks that have been read back to the kernel.
  void release();

 private:
  [[nodiscard]] tpacket_block_desc* block() const {
    return reinterpret_cast<tpacket_block_desc*>(memory_ + at_ * kBlockBytes);
  }
  [[nodiscard]] bool is_ours() const {
    return (std::atomic_ref<uint32_t>(block()->hdr.bh1.block_status)
                .load(std::memory_order_acquire) &
            TP_STATUS_USER) != 0;
  }

  uint8_t* memory_ = nullptr;
  size_t at_ = 0;                    // the block that is read
  uint32_t left_ = 0;                // frames of it
  const uint8_t* packet_ = nullptr;  // the next of them
  bool open_ = false;
};

struct PacketSockets {
  UniqueFd plain;
  UniqueFd ringed;
  UniqueFd sender;
  PacketRing ring;

  // Each returns 0 or an errno; `step` then names what failed. The receiving sockets let nothing
  // in until `accept`.
  [[nodiscard]] int open_plain(const PacketInterface& device, std::string& step);
  [[nodiscard]] int open_ring(const PacketInterface& device, std::string& step);
  [[nodiscard]] int open_sender(const PacketInterface& device, std::string& step);
  [[nodiscard]] int accept(const ClassicProgram& filter);
  // Frames that the kernel dropped since the last call, because nobody took them in time.
  [[nodiscard]] uint64_t take_drops();
};

[[nodiscard]] int attach_filter(int fd, const ClassicProgram& program);
// `kind` is PACKET_MR_*.
[[nodiscard]] int join_group(int fd, int index, uint16_t kind, const MacAddress& mac);
void leave_group(int fd, int index, uint16_t kind, const MacAddress& mac);

}  // namespace apo
