// See fd_link.h.
#include "links/fd_link.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>

#include "links/tun_device.h"

namespace apo {
namespace {

// Small packets stand here in their frame, so that a header can be put before them.
constexpr size_t kSmallOffset = 64;
constexpr size_t kSmallPacketBytes = FramePool::kSmallBytes - kSmallOffset;
constexpr size_t kPacketBytesMax = 65'535;
constexpr size_t kFewMessages = 4;

// A batch of a TUN device ends once it has so many bytes: super-packets are to be handed over, and
// their frames to be used again, while the processor's cache still has them. Without this, 60,000
// bytes took 5.2 us to read and not 3.4 (a bare read into one buffer: 3.0).
constexpr size_t kBatchBytes = 262'144;

// How long one call of `send` waits for a full descriptor, altogether. A reader that is alive makes
// room in microseconds; one that is not costs this once.
constexpr int64_t kRoomWaitNs = 1'000'000;

// Reading that fails so many times in a row, with nothing in between, will not recover.
constexpr int kFailuresMax = 16;

}  // namespace

std::shared_ptr<FdLink> FdLink::create(FdLinkOptions options) {
  // An epoll descriptor that watches nothing: never ready, and neither read nor written.
  UniqueFd quiet(::epoll_create1(EPOLL_CLOEXEC));
  if (!quiet) return nullptr;
  return std::shared_ptr<FdLink>(new FdLink(std::move(options), std::move(quiet)));
}

FdLink::FdLink(FdLinkOptions options, UniqueFd quiet)
    : options_(std::move(options)), quiet_(std::move(quiet)) {
  polled_ = {options_.fd.get(), POLLIN, 0};
  scratch_ =
      std::make_unique_for_overwrite<uint8_t[]>(FramePool::kSmallBytes + FramePool::kLargeBytes);
  const size_t slots = options_.kind == FdKind::kTun ? 1 : kMessages;
  slots_.resize(slots);
  received_.resize(slots);
  for (size_t i = 0; i < slots; ++i) {
    Slot& slot = slots_[i];
    slot.pieces[0] = {slot.header.data(), options_.header_bytes};
    slot.pieces[1].iov_len = kSmallPacketBytes;
    slot.pieces[2].iov_len = FramePool::kLargeBytes - kSmallPacketBytes;
    // The header's piece is left out where there is none.
    const size_t first = options_.header_bytes == 0 ? 1 : 0;
    received_[i].msg_hdr.msg_iov = &slot.pieces[first];
    received_[i].msg_hdr.msg_iovlen = slot.pieces.size() - first;
  }
  sent_.resize(kBatch);
  sent_pieces_.resize(kBatch);
  sent_headers_.resize(kBatch);
  sent_packets_.resize(kBatch);
}

int FdLink::start(const LinkContext& context) {
  context_.emplace(context);
  return 0;
}

void FdLink::close() {
  shut();
  if (options_.on_close) options_.on_close();
}

void FdLink::shut() {
  if (shut_.exchange(true, std::memory_order_acq_rel)) return;
  // A call that is in progress on another thread keeps the old file until it returns.
  (void)::dup3(quiet_.get(), options_.fd.get(), O_CLOEXEC);
}

void FdLink::ended() {
  if (is_shut()) return;
  shut();
  context_->counters.add(LinkCounter::kLinkEnded);
}

// --- in ----------------------------------------------------------------------------------------

void FdLink::arm(Slot& slot) {
  FramePool& pool = context_->pool;
  if (slot.small == 0) {
    slot.small = pool.allocate(false);
    slot.pieces[1].iov_base =
        slot.small == 0 ? scratch_.get() : pool.frame(slot.small).data() + kSmallOffset;
  }
  if (slot.large == 0) {
    slot.large = pool.allocate(true);
    slot.pieces[2].iov_base =
        (slot.large == 0 ? scratch_.get() : pool.frame(slot.large).data()) + kSmallPacketBytes;
  }
}

void FdLink::disarm(Slot& slot) {
  if (slot.small != 0) context_->pool.release(slot.small);
  if (slot.large != 0) context_->pool.release(slot.large);
  slot.small = 0;
  slot.large = 0;
}

bool FdLink::drop(LinkCounter reason, size_t bytes) {
  context_->counters.add(LinkCounter::kRxPackets);
  context_->counters.add(LinkCounter::kRxBytes, bytes);
  context_->counters.add(reason);
  return false;
}

bool FdLink::take(Slot& slot, size_t bytes, bool truncated, IncomingPacket& packet) {
  if (bytes < options_.header_bytes) return drop(LinkCounter::kRxDroppedVnetHeader, 0);
  const size_t length = bytes - options_.header_bytes;
  if (length == 0) return drop(LinkCounter::kRxDroppedHeader, 0);
  if (truncated || length > kPacketBytesMax) return drop(LinkCounter::kRxDroppedTooBig, length);
  const bool large = length > kSmallPacketBytes;
  uint32_t& frame = large ? slot.large : slot.small;
  if (frame == 0 || (large && slot.small == 0)) {
    return drop(LinkCounter::kRxDroppedPoolEmpty, length);
  }
  auto* at = static_cast<uint8_t*>(slot.pieces[1].iov_base);
  if (large) {
    auto* start = static_cast<uint8_t*>(slot.pieces[2].iov_base) - kSmallPacketBytes;
    std::memcpy(start, at, kSmallPacketBytes);
    at = start;
  }
  packet.offload = {};
  if (options_.header_bytes > 0) {
    const std::optional<Offload> offload =
        wire::read_virtio_header({slot.header.data(), options_.header_bytes}, {at, length});
    if (!offload) return drop(LinkCounter::kRxDroppedVnetHeader, length);
    packet.offload = *offload;
  }
  packet.frame = std::exchange(frame, 0);
  packet.offset = large ? 0 : kSmallOffset;
  packet.length = static_cast<uint32_t>(length);
  return true;
}

size_t FdLink::receive(std::span<IncomingPacket> packets) {
  if (is_shut()) return 0;
  return options_.kind == FdKind::kTun ? receive_tun(packets) : receive_messages(packets);
}

size_t FdLink::receive_tun(std::span<IncomingPacket> packets) {
  Slot& slot = slots_[0];
  const msghdr& message = received_[0].msg_hdr;
  size_t count = 0;
  size_t bytes = 0;
  // A dropped packet counts as a turn, too: a flood of them must not hold the thread.
  for (size_t turns = 0; turns < packets.size() && bytes < kBatchBytes; ++turns) {
    arm(slot);
    const ssize_t got =
        ::readv(options_.fd.get(), message.msg_iov, static_cast<int>(message.msg_iovlen));
    if (got < 0) {
      receive_failed(errno);
      break;
    }
    failures_ = 0;
    bytes += static_cast<size_t>(got);
    if (take(slot, static_cast<size_t>(got), false, packets[count])) ++count;
  }
  disarm(slot);
  return count;
}

size_t FdLink::receive_messages(std::span<IncomingPacket> packets) {
  // Frames for a few more than came last time: taking and returning those of a full batch costs
  // more than reading one packet does.
  const size_t wanted =
      std::min({packets.size(), kMessages, std::max(kFewMessages, expected_ * 2)});
  for (size_t i = 0; i < wanted; ++i) {
    arm(slots_[i]);
    received_[i].msg_hdr.msg_flags = 0;
  }
  const int got = ::recvmmsg(options_.fd.get(), received_.data(), static_cast<unsigned>(wanted),
                             MSG_DONTWAIT, nullptr);
  size_t count = 0;
  bool empty = false;
  if (got < 0) {
    receive_failed(errno);
  } else {
    failures_ = 0;
    for (size_t i = 0; i < static_cast<size_t>(got); ++i) {
      const mmsghdr& message = received_[i];
      // No message, or the end of all of them: the descriptor alone knows.
      if (message.msg_len == 0) {
        if (!empty && hung_up()) {
          ended();
          break;
        }
        empty = true;
      }
      const bool truncated = (message.msg_hdr.msg_flags & MSG_TRUNC) != 0;
      if (take(slots_[i], message.msg_len, truncated, packets[count])) ++count;
    }
  }
  for (size_t i = 0; i < wanted; ++i) disarm(slots_[i]);
  expected_ = count;
  return count;
}

bool FdLink::hung_up() const {
  pollfd entry = {options_.fd.get(), POLLIN | POLLRDHUP, 0};
  return ::poll(&entry, 1, 0) > 0 && (entry.revents & (POLLHUP | POLLRDHUP | POLLERR)) != 0;
}

void FdLink::receive_failed(int error) {
  if (error == EAGAIN || error == EINTR || is_shut()) return;
  context_->counters.add(LinkCounter::kLinkErrors);
  // EBADFD: the TUN device has been deleted.
  const bool final = error == EBADFD || error == ENOTCONN || error == EBADF ||
                     (error == ECONNRESET && options_.kind == FdKind::kUnixSocket);
  if (final || ++failures_ >= kFailuresMax) ended();
}

// --- out ---------------------------------------------------------------------------------------

void FdLink::send(std::span<OutgoingPacket> packets) {
  room_deadline_ns_ = 0;
  if (options_.kind == FdKind::kTun) {
    send_tun(packets);
    return;
  }
  while (!packets.empty()) {
    const size_t count = std::min(packets.size(), kBatch);
    send_messages(packets.first(count));
    packets = packets.subspan(count);
  }
}

bool FdLink::prepare(OutgoingPacket& packet, size_t place) {
  Header& header = sent_headers_[place];
  if (options_.header_bytes > 0) {
    if (!wire::write_virtio_header({header.data(), options_.header_bytes}, packet.bytes,
                                   packet.offload)) {
      packet.result = LinkCounter::kTxDroppedRefused;
      return false;
    }
  } else if (packet.offload.checksum_state == ChecksumState::kPartial ||
             packet.offload.gso_kind != GsoKind::kNone) {
    packet.result = LinkCounter::kTxDroppedRefused;
    return false;
  }
  std::array<iovec, 2>& pieces = sent_pieces_[place];
  pieces[0] = {header.data(), options_.header_bytes};
  pieces[1] = {const_cast<uint8_t*>(packet.bytes.data()), packet.bytes.size()};
  return true;
}

bool FdLink::wait_for_room() {
  if (unresponsive_) return false;
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const int64_t now_ns = int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
  if (room_deadline_ns_ == 0) room_deadline_ns_ = now_ns + kRoomWaitNs;
  pollfd entry = {options_.fd.get(), POLLOUT, 0};
  const timespec limit = {0, std::max<long>(0, static_cast<long>(room_deadline_ns_ - now_ns))};
  if (limit.tv_nsec > 0 && ::ppoll(&entry, 1, &limit, nullptr) > 0) return true;
  unresponsive_ = true;
  return false;
}

LinkCounter FdLink::refusal(int error) {
  if (is_shut()) return LinkCounter::kTxDroppedLinkEnded;  // during the call
  switch (error) {
    case EAGAIN:
    case ENOBUFS:
    case ENOMEM:
      return LinkCounter::kTxDroppedLinkFull;
    case EBADFD:  // the TUN device has been deleted
    case EPIPE:
    case ENOTCONN:
      ended();
      return LinkCounter::kTxDroppedLinkEnded;
    case ECONNREFUSED:
    case ECONNRESET:
      // Of a socket pair: the other end is closed. Of UDP: an ICMP error, which may pass.
      if (options_.kind != FdKind::kUnixSocket) return LinkCounter::kTxDroppedRefused;
      ended();
      return LinkCounter::kTxDroppedLinkEnded;
    default:
      return LinkCounter::kTxDroppedRefused;
  }
}

void FdLink::send_tun(std::span<OutgoingPacket> packets) {
  const size_t first = options_.header_bytes == 0 ? 1 : 0;
  for (OutgoingPacket& packet : packets) {
    if (is_shut()) {
      packet.result = LinkCounter::kTxDroppedLinkEnded;
      continue;
    }
    if (!prepare(packet, 0)) continue;
    const iovec* pieces = &sent_pieces_[0][first];
    for (;;) {
      if (::writev(options_.fd.get(), pieces, static_cast<int>(2 - first)) >= 0) {
        packet.result = LinkCounter::kTxPackets;
        unresponsive_ = false;
        break;
      }
      const int error = errno;
      if (error == EINTR || (error == EAGAIN && wait_for_room())) continue;
      packet.result = refusal(error);
      break;
    }
  }
}

void FdLink::send_messages(std::span<OutgoingPacket> packets) {
  const size_t first = options_.header_bytes == 0 ? 1 : 0;
  size_t count = 0;
  for (OutgoingPacket& packet : packets) {
    if (!prepare(packet, count)) continue;
    sent_[count].msg_hdr.msg_iov = &sent_pieces_[count][first];
    sent_[count].msg_hdr.msg_iovlen = 2 - first;
    sent_packets_[count++] = &packet;
  }
  size_t at = 0;
  while (at < count && !is_shut()) {
    const int sent = ::sendmmsg(options_.fd.get(), &sent_[at], static_cast<unsigned>(count - at),
                                MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0) {
      unresponsive_ = false;
      for (int i = 0; i < sent; ++i) sent_packets_[at++]->result = LinkCounter::kTxPackets;
      continue;
    }
    const int error = errno;
    if (error == EINTR || (error == EAGAIN && wait_for_room())) continue;
    const LinkCounter result = refusal(error);
    sent_packets_[at++]->result = result;
    if (result != LinkCounter::kTxDroppedLinkFull) continue;
    while (at < count) sent_packets_[at++]->result = result;
  }
  while (at < count) sent_packets_[at++]->result = LinkCounter::kTxDroppedLinkEnded;
}

// --- opening a descriptor of the user's --------------------------------------------------------

namespace {

// What a TUN descriptor must be; else `step` says what it is not.
int fit_tun(int fd, FdLinkOptions& options, std::string& step) {
  const std::optional<TunFacts> facts = tun_facts(fd);
  if (!facts) return step = "kind of descriptor", ENOTSOCK;
  if (facts->ethernet) return step = "TAP", EPROTOTYPE;
  if (facts->packet_information) return step = "IFF_NO_PI", EPROTOTYPE;
  if (facts->header_bytes != options.header_bytes) {
    step = facts->header_bytes == 0 ? "no virtio_net_hdr" : "virtio_net_hdr";
    return EPROTOTYPE;
  }
  options.kind = FdKind::kTun;
  if (options.header_bytes > 0) options.features = set_tun_offloads(fd);
  return 0;
}

int fit_socket(int fd, int type, FdLinkOptions& options, std::string& step) {
  if (type != SOCK_SEQPACKET && type != SOCK_DGRAM) return step = "type of socket", EPROTOTYPE;
  int domain = 0;
  socklen_t bytes = sizeof(domain);
  if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &bytes) != 0) {
    return step = "getsockopt(SO_DOMAIN)", errno;
  }
  options.kind = domain == AF_UNIX ? FdKind::kUnixSocket : FdKind::kOtherSocket;
  // Who speaks the header takes what it can say.
  if (options.header_bytes > 0) options.features = {true, true, true};
  return 0;
}

}  // namespace

OpenedLink open_fd_link(const LinkSettings& settings) {
  const auto given = static_cast<int>(settings.integer("fd", 0, INT_MAX, -1));
  FdLinkOptions options;
  options.fd = UniqueFd(::fcntl(given, F_DUPFD_CLOEXEC, 3));
  if (!options.fd) return OpenedLink::failed(errno, "fcntl(F_DUPFD_CLOEXEC)");
  options.mtu = static_cast<size_t>(settings.integer("mtu", 68, kPacketBytesMax, 1500));
  const int64_t header_bytes = settings.integer("vnetHeaderBytes", 0, 12, 0);
  if (header_bytes != 0 && header_bytes != 10 && header_bytes != 12) {
    return OpenedLink::failed(EINVAL, "vnetHeaderBytes");
  }
  options.header_bytes = static_cast<size_t>(header_bytes);

  const int fd = options.fd.get();
  std::string step;
  int type = 0;
  socklen_t bytes = sizeof(type);
  const bool is_socket = ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &bytes) == 0;
  const int unfit = is_socket ? fit_socket(fd, type, options, step) : fit_tun(fd, options, step);
  if (unfit != 0) return OpenedLink::failed(unfit, step);
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
    return OpenedLink::failed(errno, "fcntl(O_NONBLOCK)");
  }
  OpenedLink link;
  std::shared_ptr<FdLink> queue = FdLink::create(std::move(options));
  if (!queue) return OpenedLink::failed(EMFILE, "epoll_create1");
  link.queues.push_back(std::move(queue));
  link.addresses = settings.addresses;
  return link;
}

}  // namespace apo
