#include "links/xdp_socket.h"

#include <sys/mman.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace apo {
namespace {

// Packets that one sendto may put on the wire in copy mode; 32 unless told. Newer than some headers
// (Linux 6.18), and a kernel that does not know it is just asked more often.
constexpr int kOptionTransmitBudget = 9;
constexpr int kTransmitBudget = 256;

// What packets under way may take of the kernel's memory, in copy mode.
constexpr int kSendBufferBytes = 8 * 1024 * 1024;

int status(int result) { return result < 0 ? errno : 0; }

int set_option(int socket, int option, const void* value, size_t bytes) {
  return status(setsockopt(socket, SOL_XDP, option, value, static_cast<socklen_t>(bytes)));
}

}  // namespace

template <typename Entry>
int XdpRing<Entry>::map(int socket, uint64_t page_offset, const xdp_ring_offset& offsets,
                        uint32_t entries) {
  const size_t bytes = offsets.desc + sizeof(Entry) * entries;
  void* mapping = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, socket,
                       static_cast<off_t>(page_offset));
  if (mapping == MAP_FAILED) return errno;
  unmap();
  auto* at = static_cast<uint8_t*>(mapping);
  mapping_ = mapping;
  mapping_bytes_ = bytes;
  producer_ = reinterpret_cast<uint32_t*>(at + offsets.producer);
  consumer_ = reinterpret_cast<uint32_t*>(at + offsets.consumer);
  flags_ = reinterpret_cast<uint32_t*>(at + offsets.flags);
  slots_ = reinterpret_cast<Entry*>(at + offsets.desc);
  entries_ = entries;
  return 0;
}

template <typename Entry>
void XdpRing<Entry>::unmap() {
  if (mapping_ != nullptr) munmap(mapping_, mapping_bytes_);
  mapping_ = nullptr;
}

template <typename Entry>
void XdpRing<Entry>::swap(XdpRing& other) {
  std::swap(mapping_, other.mapping_);
  std::swap(mapping_bytes_, other.mapping_bytes_);
  std::swap(producer_, other.producer_);
  std::swap(consumer_, other.consumer_);
  std::swap(flags_, other.flags_);
  std::swap(slots_, other.slots_);
  std::swap(entries_, other.entries_);
  std::swap(own_, other.own_);
  std::swap(known_, other.known_);
}

template class XdpRing<uint64_t>;
template class XdpRing<xdp_desc>;

int XdpSocket::open() {
  fd_ = UniqueFd(socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0));
  if (!fd_) return errno;
  const int buffer = kSendBufferBytes;
  const int budget = kTransmitBudget;
  // Both make it faster, none is needed.
  (void)setsockopt(fd_.get(), SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer);
  (void)set_option(fd_.get(), kOptionTransmitBudget, &budget, sizeof budget);
  return 0;
}

int XdpSocket::register_memory(std::span<uint8_t> memory) {
  xdp_umem_reg registration;
  std::memset(&registration, 0, sizeof registration);
  registration.addr = reinterpret_cast<uintptr_t>(memory.data());
  registration.len = memory.size();
  registration.chunk_size = kFrameBytes;
  registration.headroom = kHeadroomBytes;
  return set_option(fd_.get(), XDP_UMEM_REG, &registration, sizeof registration);
}

int XdpSocket::make_rings(const XdpRingSizes& sizes) {
  const std::pair<int, uint32_t> wanted[] = {{XDP_UMEM_FILL_RING, sizes.fill},
                                             {XDP_UMEM_COMPLETION_RING, sizes.completion},
                                             {XDP_RX_RING, sizes.receive},
                                             {XDP_TX_RING, sizes.transmit}};
  for (const auto& [option, entries] : wanted) {
    if (entries == 0) continue;
    const int error = set_option(fd_.get(), option, &entries, sizeof entries);
    if (error != 0) return error;
  }
  xdp_mmap_offsets at;
  socklen_t length = sizeof at;
  if (getsockopt(fd_.get(), SOL_XDP, XDP_MMAP_OFFSETS, &at, &length) < 0) return errno;
  if (length != sizeof at) return EPROTO;  // a kernel before 5.4, whose rings have no flags
  int error = fill.map(fd(), XDP_UMEM_PGOFF_FILL_RING, at.fr, sizes.fill);
  if (error == 0) {
    error = completion.map(fd(), XDP_UMEM_PGOFF_COMPLETION_RING, at.cr, sizes.completion);
  }
  if (error == 0) error = receive.map(fd(), XDP_PGOFF_RX_RING, at.rx, sizes.receive);
  if (error == 0 && sizes.transmit > 0) {
    error = transmit.map(fd(), XDP_PGOFF_TX_RING, at.tx, sizes.transmit);
  }
  return error;
}

int XdpSocket::bind(uint32_t interface_index, uint32_t queue, XdpCopy copy,
                    const XdpSocket* memory_of) {
  sockaddr_xdp address;
  std::memset(&address, 0, sizeof address);
  address.sxdp_family = AF_XDP;
  address.sxdp_ifindex = interface_index;
  address.sxdp_queue_id = queue;
  const auto try_with = [&](int flags) {
    address.sxdp_flags = static_cast<uint16_t>(flags);
    return status(::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address));
  };
  if (memory_of != nullptr) {
    address.sxdp_shared_umem_fd = static_cast<uint32_t>(memory_of->fd());
    return try_with(XDP_SHARED_UMEM);
  }
  int error = EOPNOTSUPP;
  if (copy != XdpCopy::kCopy) error = try_with(XDP_ZEROCOPY | XDP_USE_NEED_WAKEUP);
  const bool is_final = error == 0 || error == EBUSY || copy == XdpCopy::kZeroCopy;
  return is_final ? error : try_with(XDP_COPY | XDP_USE_NEED_WAKEUP);
}

void XdpSocket::close() {
  // The kernel lets the socket go with its last mapping.
  fill.unmap();
  completion.unmap();
  receive.unmap();
  transmit.unmap();
  fd_.reset();
}

bool XdpSocket::is_zero_copy() const {
  xdp_options options;
  socklen_t length = sizeof options;
  return getsockopt(fd_.get(), SOL_XDP, XDP_OPTIONS, &options, &length) == 0 &&
         (options.flags & XDP_OPTIONS_ZEROCOPY) != 0;
}

xdp_statistics XdpSocket::statistics() const {
  xdp_statistics counted;
  std::memset(&counted, 0, sizeof counted);
  socklen_t length = sizeof counted;
  (void)getsockopt(fd_.get(), SOL_XDP, XDP_STATISTICS, &counted, &length);
  return counted;
}

void XdpSocket::wake_receive() {
  if (fill.needs_wakeup()) (void)recvfrom(fd_.get(), nullptr, 0, MSG_DONTWAIT, nullptr, nullptr);
}

bool XdpSocket::wake_transmit() {
  uint32_t waiting = transmit.waiting();
  while (waiting > 0 && transmit.needs_wakeup()) {
    // EAGAIN (the budget is used up, or no memory), EBUSY and ENOBUFS (the device's queue is full)
    // all say "again"; whether that helps is told by the ring.
    if (sendto(fd_.get(), nullptr, 0, MSG_DONTWAIT, nullptr, 0) < 0 && errno != EAGAIN &&
        errno != EBUSY && errno != ENOBUFS && errno != EINTR) {
      return false;
    }
    const uint32_t left = transmit.waiting();
    if (left >= waiting) return false;
    waiting = left;
  }
  return true;
}

}  // namespace apo
