// The fan-out engine's end of a raw link: UDP through the native threads' rings, where there are no
// sockets of the kernel.
//
// The engine stands there like a worker: datagrams to the ports that it has opened come by a ring
// from each queue's thread, what it sends goes by one ring to the first queue's. Used by the
// engine's thread alone, but for `open` and `close`. All memory is shared with JavaScript, and
// whoever makes a RawPort keeps it alive.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "ip/ip_address.h"
#include "memory/doorbell.h"
#include "memory/frame_pool.h"
#include "memory/ring.h"
#include "thread/worker_port.h"
#include "util/ip_endpoint.h"

namespace apo {

struct RawPortOptions {
  std::vector<RingMemory> receive;  // one a queue
  RingMemory transmit;              // to the first queue
  FramePool pool;                   // a partition of its own
  PortBitmap udp_ports;             // the ports that are open here
  Doorbell link;                    // wakes the first queue's thread
  AddressSet addresses;             // our own
};

class RawPort {
 public:
  // A datagram, or a run of equal-sized ones in a row.
  struct Message {
    std::span<const uint8_t> bytes;
    size_t segment_bytes = 0;  // each is this long, the last perhaps shorter
    IpEndpoint from;
    uint16_t port = 0;  // ours
  };

  explicit RawPort(const RawPortOptions& options);

  // Any thread: datagrams to the port come here from now on, or no more.
  void open(uint16_t port) { mark(port, true); }
  void close(uint16_t port) { mark(port, false); }

  // The next datagram; nullopt when none waits. Its bytes are good until `done`.
  std::optional<Message> receive();
  void done();

  // Says that the thread will sleep. False: something has come meanwhile.
  [[nodiscard]] bool sleep();
  void wake();

  // Queues the pieces as one datagram, or as a run of them. 0 or an errno: EAGAIN when there is no
  // frame or no place in the ring, EADDRNOTAVAIL without an address of the family, EMSGSIZE.
  int send(uint16_t from, const IpEndpoint& to, std::span<const iovec> pieces, size_t bytes,
           size_t segment_bytes);
  void flush();

 private:
  void mark(uint16_t port, bool open);
  [[nodiscard]] const uint8_t* source_for(uint8_t version, const uint8_t* to) const;

  std::vector<RingConsumer> receive_;
  RingProducer transmit_;
  FramePool pool_;
  PortBitmap udp_ports_;
  Doorbell link_;
  AddressSet addresses_;
  size_t next_ = 0;    // the queue that is looked at next
  uint32_t held_ = 0;  // the frame of the datagram at hand
};

}  // namespace apo
