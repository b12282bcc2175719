// What the native thread asks of a link. A link is one file behind this interface and one line in
// link_kinds.cc; the thread neither knows nor cares whether packets come from memory, a file
// descriptor or a network card. One object is one queue of the link and belongs to one thread.
//
// All calls come from the native thread, but for `start` (before it runs), `open_port`, `close_port`
// and `close` (from any thread).
#pragma once

#include <poll.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "ip/ip_address.h"
#include "memory/doorbell.h"
#include "memory/frame_pool.h"
#include "thread/link_counters.h"
#include "wire/packet_descriptor.h"

namespace apo {

// Room in the pool for one packet; frame 0: there is none.
struct IncomingFrame {
  uint32_t frame = 0;
  uint32_t offset = 0;
  uint8_t* bytes = nullptr;  // at that offset
};

// What the thread lends its link, from `start` until the thread has ended.
struct LinkContext {
  // Where a packet begins in a small frame: room before it for whoever prepends. A larger packet
  // begins at a large frame's first byte, since it may have all but one of its 65,536.
  static constexpr size_t kHeadroomBytes = 64;
  static constexpr size_t kSmallPacketBytes = FramePool::kSmallBytes - kHeadroomBytes;

  FramePool pool;         // frames for what is received: the thread's own partition
  LinkCounters counters;  // for what the link drops or does by itself
  Doorbell doorbell;      // for a link without descriptors, that others put packets into

  // A frame for a received packet of so many bytes; without one the packet is counted as dropped.
  [[nodiscard]] IncomingFrame take_frame(size_t bytes) {
    const bool small = bytes <= kSmallPacketBytes;
    if (bytes > FramePool::kLargeBytes) return drop(LinkCounter::kRxDroppedTooBig);
    const uint32_t frame = pool.allocate(!small);
    if (frame == 0) return drop(LinkCounter::kRxDroppedPoolEmpty);
    const uint32_t offset = small ? kHeadroomBytes : 0;
    return {frame, offset, pool.own_frame(frame) + offset};
  }

  // Counts a received packet that goes no further than the link.
  IncomingFrame drop(LinkCounter reason) {
    counters.add(LinkCounter::kRxPackets);
    counters.add(reason);
    return {};
  }
};

// A received IP packet in a pool frame, which has a count of one and belongs to the taker from here
// on. Nothing of the packet has been checked: `length` is what the link has, not what the IP header
// says.
struct IncomingPacket {
  uint32_t frame = 0;
  uint32_t offset = 0;  // of the IP header's first byte in the frame
  uint32_t length = 0;
  Offload offload;
};

// A whole IP packet to be sent, and what became of it: `result` is kTxPackets when the link took
// it, else the reason for which it was dropped. kTxParked: the link has copied it and will send or
// drop (and count) it by itself, when its next hop is known.
struct OutgoingPacket {
  std::span<const uint8_t> bytes;
  // Within `LinkFeatures`: what is left for the link (or the kernel behind it) to do.
  Offload offload;
  LinkCounter result = LinkCounter::kTxDroppedNoRoute;
};

// What a link does for packets that are sent over it.
struct LinkFeatures {
  bool checksum = false;  // completes a partial checksum (ChecksumState::kPartial)
  bool tcp_gso = false;   // takes TCP super-packets of up to 65,535 bytes
  bool udp_gso = false;   // likewise UDP
};

class Link {
 public:
  static constexpr size_t kBatch = 64;
  static constexpr uint64_t kNever = UINT64_MAX;

  virtual ~Link() = default;

  // Once, before anything else. 0, or an errno.
  [[nodiscard]] virtual int start(const LinkContext& context) = 0;

  // The longest IP packet that may be sent as one (a super-packet's segments are within it).
  [[nodiscard]] virtual size_t mtu() const = 0;
  [[nodiscard]] virtual LinkFeatures features() const { return {}; }

  // Takes up to `packets.size()` packets from the wire into frames. A packet that finds no frame,
  // or is no IP packet at all, is dropped and counted here (kRxPackets and its reason).
  [[nodiscard]] virtual size_t receive(std::span<IncomingPacket> packets) = 0;

  // Sends a batch; when it returns, the packets' memory may be used again.
  virtual void send(std::span<OutgoingPacket> packets) = 0;

  // When `tick` wants to be called next, in microseconds of CLOCK_MONOTONIC.
  [[nodiscard]] virtual uint64_t deadline_us() const { return kNever; }
  virtual void tick(uint64_t /*now_us*/) {}

  // Before sleeping: from here on the link rings the thread's doorbell when a packet comes, or one
  // of `poll_set` becomes ready. False: one is here.
  [[nodiscard]] virtual bool prepare_sleep() { return true; }
  virtual void finish_sleep() {}
  // The descriptors to be slept on, with their events; none: the doorbell alone. Which they are does
  // not change after `start`.
  [[nodiscard]] virtual std::span<const pollfd> poll_set() { return {}; }

  // From any thread, on the first queue alone: packets to this TCP or UDP port (IP protocol 6 or
  // 17), and echo replies with this identifier (1), are
  // ours from here on (a link that shares its address with the kernel takes them from it). 0, or an errno.
  [[nodiscard]] virtual int open_port(uint8_t /*protocol*/, uint16_t /*port*/) { return 0; }
  virtual void close_port(uint8_t /*protocol*/, uint16_t /*port*/) {}

  // From any thread, on the first queue alone: packets to this multicast group (from this source, if
  // there is one) are wanted, as often as it is called. 0, or an errno.
  [[nodiscard]] virtual int join_group(const IpAddress& /*group*/, const IpAddress* /*source*/) {
    return 0;
  }
  virtual void leave_group(const IpAddress& /*group*/, const IpAddress* /*source*/) {}
  // Whether somebody else tells the network of them.
  [[nodiscard]] virtual bool reports_groups() const { return false; }

  // From any thread, before the thread is stopped: when it returns, nothing more comes in and
  // nobody rings the doorbell on the link's behalf. What is in already can still be received.
  // Idempotent; what the link made in the system is removed here or when it is destroyed.
  virtual void close() = 0;
};

}  // namespace apo
