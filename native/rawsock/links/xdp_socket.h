// One AF_XDP socket: its four rings, and the memory (UMEM) that frames lie in. Frames are named by
// their offset in that memory. Who owns a frame is the caller's matter: what it puts into the fill or
// transmit ring is the kernel's until it comes out of the receive or completion ring.
//
// Used by one thread. Knows nothing of packets.
#pragma once

#include <linux/if_xdp.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "util/unique_fd.h"

namespace apo {

// One end of a ring that is shared with the kernel. `Entry` is uint64_t (a frame) or xdp_desc.
template <typename Entry>
class XdpRing {
 public:
  XdpRing() = default;
  XdpRing(XdpRing&& other) noexcept { swap(other); }
  XdpRing& operator=(XdpRing&& other) noexcept {
    swap(other);
    return *this;
  }
  XdpRing(const XdpRing&) = delete;
  XdpRing& operator=(const XdpRing&) = delete;
  ~XdpRing() { unmap(); }

  // 0 or an errno.
  [[nodiscard]] int map(int socket, uint64_t page_offset, const xdp_ring_offset& offsets,
                        uint32_t entries);
  void unmap();

  // Our end produces (fill, transmit): room, then entries, then `publish`.
  [[nodiscard]] uint32_t room() {
    if (entries_ - (own_ - known_) < entries_ / 2) refresh(consumer_);
    return entries_ - (own_ - known_);
  }
  void push(const Entry& entry) { slots_[own_++ & (entries_ - 1)] = entry; }
  void publish() { std::atomic_ref(*producer_).store(own_, std::memory_order_release); }
  // Entries that the kernel has not taken yet.
  [[nodiscard]] uint32_t waiting() {
    refresh(consumer_);
    return own_ - known_;
  }

  // Our end consumes (receive, completion): how many there are, then entries, then `release`.
  [[nodiscard]] uint32_t available() {
    if (own_ == known_) refresh(producer_);
    return known_ - own_;
  }
  [[nodiscard]] const Entry& take() { return slots_[own_++ & (entries_ - 1)]; }
  void release() { std::atomic_ref(*consumer_).store(own_, std::memory_order_release); }

  [[nodiscard]] bool needs_wakeup() const {
    return (std::atomic_ref(*flags_).load(std::memory_order_relaxed) & XDP_RING_NEED_WAKEUP) != 0;
  }
  [[nodiscard]] uint32_t entries() const { return entries_; }
  [[nodiscard]] bool is_mapped() const { return mapping_ != nullptr; }

 private:
  void refresh(uint32_t* index) {
    known_ = std::atomic_ref(*index).load(std::memory_order_acquire);
  }
  void swap(XdpRing& other);

  void* mapping_ = nullptr;
  size_t mapping_bytes_ = 0;
  uint32_t* producer_ = nullptr;
  uint32_t* consumer_ = nullptr;
  uint32_t* flags_ = nullptr;
  Entry* slots_ = nullptr;
  uint32_t entries_ = 0;
  uint32_t own_ = 0;    // our end's index
  uint32_t known_ = 0;  // the other end's, as last seen
};

enum class XdpCopy : uint8_t { kAuto, kZeroCopy, kCopy };

// Entries of the rings, powers of two. Transmit 0: the socket receives only.
struct XdpRingSizes {
  uint32_t fill = 0;
  uint32_t receive = 0;
  uint32_t transmit = 0;
  uint32_t completion = 0;
};

class XdpSocket {
 public:
  static constexpr uint32_t kFrameBytes = 2048;
  // What the kernel leaves free before a received packet (XDP_PACKET_HEADROOM), and what we add to
  // it: the IP header behind 14 bytes of Ethernet begins at a multiple of 16, as workers read words.
  static constexpr uint32_t kKernelHeadroomBytes = 256;
  static constexpr uint32_t kHeadroomBytes = 2;
  static constexpr uint32_t kPacketBytesMax = kFrameBytes - kKernelHeadroomBytes - kHeadroomBytes;

  // Each returns 0 or an errno. In this order, `register_memory` on the first socket of a memory
  // alone.
  [[nodiscard]] int open();
  [[nodiscard]] int register_memory(std::span<uint8_t> memory);
  [[nodiscard]] int make_rings(const XdpRingSizes& sizes);
  // kAuto tries without a copy first. `memory_of`: the socket that registered the memory, when it is
  // not this one; then the kernel copies as it does there.
  [[nodiscard]] int bind(uint32_t interface_index, uint32_t queue, XdpCopy copy,
                         const XdpSocket* memory_of);
  void close();

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] bool is_zero_copy() const;
  [[nodiscard]] xdp_statistics statistics() const;

  // Tells the kernel of new frames in the fill ring, when it wants to be told.
  void wake_receive();
  // Tells the kernel of packets in the transmit ring, again and again as long as it takes some.
  // False: some are left because the device or the socket's memory is full.
  [[nodiscard]] bool wake_transmit();

  XdpRing<uint64_t> fill;
  XdpRing<xdp_desc> receive;
  XdpRing<xdp_desc> transmit;
  XdpRing<uint64_t> completion;

 private:
  UniqueFd fd_;
};

}  // namespace apo
