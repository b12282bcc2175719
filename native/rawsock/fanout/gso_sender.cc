// See gso_sender.h.
#include "fanout/gso_sender.h"

#include <netinet/udp.h>
#include <poll.h>

#include <cerrno>
#include <cstring>

namespace apo {
namespace {

// The kernel takes UDP_MAX_SEGMENTS = 64 segments a send (128 since 6.9; we stay with the number
// that all take).
constexpr size_t kSegmentsMax = 64;
// 65,535 less an IPv6 and a UDP header, and some room for options.
constexpr uint32_t kRunBytesMax = 65'000;
// A GSO refusal at this size or below cannot be the path's MTU (IPv6's minimum, 1,280, less
// headers).
constexpr uint32_t kSurelyFitsBytes = 1'200;
constexpr int kWaitMs = 4;

void add_relaxed(std::atomic<uint64_t>& counter, uint64_t amount) {
  // One writer: a plain load and store is enough, and cheaper than a locked add.
  counter.store(counter.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
}

}  // namespace

void SendCounters::fold(SendCounters& from) {
  std::atomic<uint64_t> SendCounters::*const fields[] = {
      &SendCounters::packets,        &SendCounters::bytes,
      &SendCounters::sends,          &SendCounters::gso_sends,
      &SendCounters::gso_packets,    &SendCounters::calls,
      &SendCounters::gso_refused,    &SendCounters::waits,
      &SendCounters::dropped_full,   &SendCounters::dropped_unreachable,
      &SendCounters::dropped_denied, &SendCounters::dropped_size,
      &SendCounters::dropped_other};
  for (const auto field : fields) {
    add_relaxed(this->*field, (from.*field).load(std::memory_order_relaxed));
    (from.*field).store(0, std::memory_order_relaxed);
  }
}

void cut_runs(std::span<const LoggedPacket> packets, std::vector<SendRun>& runs) {
  runs.clear();
  bool open = false;
  for (size_t i = 0; i < packets.size(); i++) {
    const LoggedPacket& packet = packets[i];
    SendRun* run = open ? &runs.back() : nullptr;
    if (run != nullptr) {
      iovec& piece = run->pieces[run->piece_count - 1];
      const bool adjacent =
          static_cast<const uint8_t*>(piece.iov_base) + piece.iov_len == packet.data;
      const bool fits = packet.bytes <= run->segment_bytes && run->packets.size() < kSegmentsMax &&
                        run->bytes + packet.bytes <= kRunBytesMax &&
                        (adjacent || run->piece_count < SendRun::kPiecesMax);
      if (fits && packet.bytes > 0) {
        if (adjacent) {
          piece.iov_len += packet.bytes;
        } else {
          run->pieces[run->piece_count++] = {const_cast<uint8_t*>(packet.data), packet.bytes};
        }
        run->packets = packets.subspan(i - run->packets.size(), run->packets.size() + 1);
        run->bytes += packet.bytes;
        run->octets += packet.payload_bytes;
        open = packet.bytes == run->segment_bytes;
        continue;
      }
    }
    SendRun& fresh = runs.emplace_back();
    fresh.pieces[0] = {const_cast<uint8_t*>(packet.data), packet.bytes};
    fresh.piece_count = 1;
    fresh.packets = packets.subspan(i, 1);
    fresh.segment_bytes = packet.bytes;
    fresh.bytes = packet.bytes;
    fresh.octets = packet.payload_bytes;
    auto* control = reinterpret_cast<cmsghdr*>(fresh.control.data());
    std::memset(fresh.control.data(), 0, fresh.control.size());
    control->cmsg_level = SOL_UDP;
    control->cmsg_type = UDP_SEGMENT;
    control->cmsg_len = CMSG_LEN(sizeof(uint16_t));
    const auto segment = static_cast<uint16_t>(packet.bytes);
    std::memcpy(CMSG_DATA(control), &segment, sizeof(segment));
    open = packet.bytes > 0 && packet.bytes < kRunBytesMax;
  }
}

void GsoSender::send_raw(SendSocket& socket, Receiver& receiver, const SendRun& run) {
  const std::span<const iovec> pieces(run.pieces.data(), run.piece_count);
  const Queued entry{&receiver, &run};
  const int error =
      socket.raw->send(socket.raw_port, receiver.rtp, pieces, run.bytes, run.segment_bytes);
  raw_ = socket.raw;
  if (error == 0) {
    sent(entry, run.packets.size() > 1);
  } else {
    drop(receiver, run.packets.size(), error);
  }
}

void GsoSender::add(SendSocket& socket, Receiver& receiver, const std::vector<SendRun>& runs) {
  if (socket.raw != nullptr) {
    for (const SendRun& run : runs) send_raw(socket, receiver, run);
    return;
  }
  if (socket_ != &socket) {
    flush();
    socket_ = &socket;
  }
  for (const SendRun& run : runs) {
    const bool wants_gso = run.packets.size() > 1;
    if (wants_gso && (!socket.gso.load(std::memory_order_relaxed) ||
                      run.segment_bytes >= receiver.gso_refused_bytes)) {
      flush();
      socket_ = &socket;
      send_singly(receiver, run);
      continue;
    }
    queue(socket, receiver, run);
  }
}

void GsoSender::queue(SendSocket& socket, Receiver& receiver, const SendRun& run) {
  if (count_ == kBatch) {
    flush();
    socket_ = &socket;
  }
  msghdr& header = headers_[count_].msg_hdr;
  header.msg_name = const_cast<sockaddr*>(receiver.rtp.raw());
  header.msg_namelen = receiver.rtp.raw_length();
  header.msg_iov = const_cast<iovec*>(run.pieces.data());
  header.msg_iovlen = run.piece_count;
  const bool gso = run.packets.size() > 1;
  header.msg_control = gso ? const_cast<uint8_t*>(run.control.data()) : nullptr;
  header.msg_controllen = gso ? run.control.size() : 0;
  queued_[count_] = {&receiver, &run};
  count_++;
}

void GsoSender::flush() {
  if (raw_ != nullptr) {
    raw_->flush();
    add_relaxed(counters_.calls, 1);
    raw_ = nullptr;
  }
  size_t done = 0;
  while (done < count_) {
    const int sent_count =
        ::sendmmsg(socket_->fd, headers_.data() + done, static_cast<unsigned>(count_ - done),
                   MSG_DONTWAIT | MSG_NOSIGNAL);
    add_relaxed(counters_.calls, 1);
    if (sent_count > 0) {
      for (int i = 0; i < sent_count; i++, done++) {
        sent(queued_[done], headers_[done].msg_hdr.msg_control != nullptr);
      }
      full_ = false;
      continue;
    }
    const bool gso = headers_[done].msg_hdr.msg_control != nullptr;
    if (failed(queued_[done], gso, errno)) done++;
  }
  count_ = 0;
  socket_ = nullptr;
  full_ = false;
}

void GsoSender::sent(const Queued& entry, bool gso) {
  const uint64_t packets = entry.run->packets.size();
  add_relaxed(entry.receiver->packets, packets);
  add_relaxed(entry.receiver->octets, entry.run->octets);
  add_relaxed(counters_.sends, 1);
  add_relaxed(counters_.packets, packets);
  add_relaxed(counters_.bytes, entry.run->bytes);
  if (gso) {
    add_relaxed(counters_.gso_sends, 1);
    add_relaxed(counters_.gso_packets, packets);
  }
}

bool GsoSender::failed(const Queued& entry, bool gso, int error) {
  if (error == EINTR) return false;
  if (error == EAGAIN) {
    if (!full_ && wait_writable()) return false;
    full_ = true;
    drop(*entry.receiver, entry.run->packets.size(), error);
    return true;
  }
  const bool refused = error == EINVAL || error == EMSGSIZE || error == EIO || error == EOPNOTSUPP;
  if (gso && refused) {
    add_relaxed(counters_.gso_refused, 1);
    const bool path_too_small =
        error != EIO && error != EOPNOTSUPP && entry.run->segment_bytes > kSurelyFitsBytes;
    if (path_too_small) {
      entry.receiver->gso_refused_bytes = entry.run->segment_bytes;
    } else {
      socket_->gso.store(false, std::memory_order_relaxed);
    }
    send_singly(*entry.receiver, *entry.run);
    return true;
  }
  drop(*entry.receiver, entry.run->packets.size(), error);
  return true;
}

void GsoSender::send_singly(Receiver& receiver, const SendRun& run) {
  for (const LoggedPacket& packet : run.packets) {
    for (;;) {
      const ssize_t n =
          ::sendto(socket_->fd, packet.data, packet.bytes, MSG_DONTWAIT | MSG_NOSIGNAL,
                   receiver.rtp.raw(), receiver.rtp.raw_length());
      add_relaxed(counters_.calls, 1);
      if (n >= 0) {
        add_relaxed(receiver.packets, 1);
        add_relaxed(receiver.octets, packet.payload_bytes);
        add_relaxed(counters_.sends, 1);
        add_relaxed(counters_.packets, 1);
        add_relaxed(counters_.bytes, packet.bytes);
        break;
      }
      const int error = errno;
      if (error == EINTR) continue;
      const bool is_full = error == EAGAIN;
      if (is_full && !full_ && wait_writable()) continue;
      if (is_full) full_ = true;
      drop(receiver, 1, error);
      break;
    }
  }
}

bool GsoSender::wait_writable() {
  add_relaxed(counters_.waits, 1);
  pollfd entry = {.fd = socket_->fd, .events = POLLOUT, .revents = 0};
  return ::poll(&entry, 1, kWaitMs) > 0 && (entry.revents & POLLOUT) != 0;
}

void GsoSender::drop(Receiver& receiver, uint64_t packets, int error) {
  add_relaxed(receiver.dropped, packets);
  switch (error) {
    case EAGAIN:
    case ENOBUFS:
      add_relaxed(counters_.dropped_full, packets);
      return;
    case ENETUNREACH:
    case EHOSTUNREACH:
    case ENETDOWN:
    case EHOSTDOWN:
    case EADDRNOTAVAIL:
    case EAFNOSUPPORT:
      add_relaxed(counters_.dropped_unreachable, packets);
      return;
    case EPERM:
    case EACCES:
      add_relaxed(counters_.dropped_denied, packets);
      return;
    case EMSGSIZE:
      add_relaxed(counters_.dropped_size, packets);
      return;
    default:
      add_relaxed(counters_.dropped_other, packets);
  }
}

}  // namespace apo
