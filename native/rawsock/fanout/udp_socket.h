// A UDP socket of the fan-out engine: bound, non-blocking, with GRO on input where the kernel has
// it.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "fanout/gso_sender.h"
#include "util/ip_endpoint.h"
#include "util/unique_fd.h"

namespace apo {

struct UdpSocketOptions {
  int receive_buffer = 8 << 20;
  int send_buffer = 8 << 20;
  bool gso = true;
  // Both families need a socket each on one port: an IPv6 one keeps to its own.
  bool v6_only = true;
};

class UdpSocket {
 public:
  // 0 or an errno. Port 0 picks a free one; `local()` tells which.
  int open(const IpEndpoint& local, const UdpSocketOptions& options);

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] const IpEndpoint& local() const { return local_; }
  [[nodiscard]] bool has_gro() const { return gro_; }
  [[nodiscard]] int receive_buffer_granted() const { return receive_buffer_granted_; }
  SendSocket send;

 private:
  UniqueFd fd_;
  IpEndpoint local_;
  bool gro_ = false;
  int receive_buffer_granted_ = 0;
};

// Buffers for one recvmmsg call, shared by all sockets of a thread.
class ReceiveBatch {
 public:
  static constexpr size_t kMessages = 16;
  static constexpr size_t kMessageBytes = 65'536;

  struct Message {
    std::span<const uint8_t> bytes;
    size_t segment_bytes;  // each datagram is this long, the last perhaps shorter
    IpEndpoint from;
    bool truncated;
    // What the kernel has dropped on this socket for want of buffer since it was opened
    // (SO_RXQ_OVFL); 0 if untold.
    uint32_t kernel_drops;
  };

  ReceiveBatch();
  // How many messages came; 0 when none wait, -errno on an error.
  int receive(int fd);
  // False when the sender's address is not one we know how to hold.
  bool message(size_t index, Message& out) const;

 private:
  struct alignas(cmsghdr) Control {
    uint8_t bytes[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(uint32_t))];
  };
  std::unique_ptr<uint8_t[]> buffer_;
  std::vector<mmsghdr> headers_;
  std::vector<iovec> pieces_;
  std::vector<sockaddr_storage> names_;
  std::vector<Control> controls_;
};

}  // namespace apo
