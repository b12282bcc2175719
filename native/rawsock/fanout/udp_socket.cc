// See udp_socket.h.
#include "fanout/udp_socket.h"

#include <fcntl.h>
#include <netinet/udp.h>

#include <cerrno>
#include <cstring>

namespace apo {
namespace {

void grow_buffer(int fd, int force_option, int option, int bytes) {
  // The forced form passes net.core.*mem_max and needs CAP_NET_ADMIN; the plain one is cut to that
  // limit.
  if (::setsockopt(fd, SOL_SOCKET, force_option, &bytes, sizeof(bytes)) != 0) {
    ::setsockopt(fd, SOL_SOCKET, option, &bytes, sizeof(bytes));
  }
}

}  // namespace

int UdpSocket::open(const IpEndpoint& local, const UdpSocketOptions& options) {
  UniqueFd fd(
      ::socket(local.is_v6() ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return errno;
  const int one = 1;
  if (local.is_v6() && options.v6_only) {
    ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
  }
  grow_buffer(fd.get(), SO_RCVBUFFORCE, SO_RCVBUF, options.receive_buffer);
  grow_buffer(fd.get(), SO_SNDBUFFORCE, SO_SNDBUF, options.send_buffer);
  if (::bind(fd.get(), local.raw(), local.raw_length()) != 0) return errno;
  sockaddr_storage name = {};
  socklen_t length = sizeof(name);
  if (::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&name), &length) != 0) return errno;
  if (const auto bound = IpEndpoint::from(name, length)) local_ = *bound;
  socklen_t size = sizeof(receive_buffer_granted_);
  ::getsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &receive_buffer_granted_, &size);
  gro_ = ::setsockopt(fd.get(), SOL_UDP, UDP_GRO, &one, sizeof(one)) == 0;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RXQ_OVFL, &one, sizeof(one));
  const int none = 0;
  send.fd = fd.get();
  send.gso.store(options.gso &&
                 ::setsockopt(fd.get(), SOL_UDP, UDP_SEGMENT, &none, sizeof(none)) == 0);
  fd_ = std::move(fd);
  return 0;
}

ReceiveBatch::ReceiveBatch()
    : buffer_(std::make_unique_for_overwrite<uint8_t[]>(kMessages * kMessageBytes)),
      headers_(kMessages),
      pieces_(kMessages),
      names_(kMessages),
      controls_(kMessages) {
  for (size_t i = 0; i < kMessages; i++) {
    pieces_[i] = {buffer_.get() + i * kMessageBytes, kMessageBytes};
    headers_[i].msg_hdr.msg_iov = &pieces_[i];
    headers_[i].msg_hdr.msg_iovlen = 1;
  }
}

int ReceiveBatch::receive(int fd) {
  for (size_t i = 0; i < kMessages; i++) {
    msghdr& header = headers_[i].msg_hdr;
    header.msg_name = &names_[i];
    header.msg_namelen = sizeof(sockaddr_storage);
    header.msg_control = controls_[i].bytes;
    header.msg_controllen = sizeof(controls_[i].bytes);
    header.msg_flags = 0;
  }
  const int count = ::recvmmsg(fd, headers_.data(), kMessages, MSG_DONTWAIT, nullptr);
  if (count >= 0) return count;
  return errno == EAGAIN || errno == EINTR ? 0 : -errno;
}

bool ReceiveBatch::message(size_t index, Message& out) const {
  const mmsghdr& header = headers_[index];
  const auto from = IpEndpoint::from(names_[index], header.msg_hdr.msg_namelen);
  if (!from) return false;
  out.from = *from;
  out.bytes = {static_cast<const uint8_t*>(pieces_[index].iov_base), header.msg_len};
  out.segment_bytes = header.msg_len;
  out.truncated = (header.msg_hdr.msg_flags & MSG_TRUNC) != 0;
  out.kernel_drops = 0;
  auto* head = const_cast<msghdr*>(&header.msg_hdr);
  for (cmsghdr* c = CMSG_FIRSTHDR(head); c != nullptr; c = CMSG_NXTHDR(head, c)) {
    if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO &&
        c->cmsg_len >= CMSG_LEN(sizeof(int))) {
      int segment = 0;
      std::memcpy(&segment, CMSG_DATA(c), sizeof(segment));
      if (segment > 0) out.segment_bytes = static_cast<size_t>(segment);
    } else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL) {
      std::memcpy(&out.kernel_drops, CMSG_DATA(c), sizeof(out.kernel_drops));
    }
  }
  return true;
}

}  // namespace apo
