// Sends packets to receivers, a run of equal-sized ones as one UDP_SEGMENT send.
//
// A run is cut once a frame and sent to every receiver; a receiver costs one message header. Sends
// are collected and leave by sendmmsg. Where the kernel refuses GSO the socket falls back to a
// message a packet, for good; where only this run was refused (longer than the path's MTU) only
// that receiver and size do.
#pragma once

#include <sys/socket.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "fanout/packet_log.h"
#include "fanout/raw_port.h"
#include "fanout/rtp_track.h"

namespace apo {

// Everything that a sender counts; written by the engine's thread, read by any.
struct SendCounters {
  std::atomic<uint64_t> packets{0};
  std::atomic<uint64_t> bytes{0};
  std::atomic<uint64_t> sends{0};      // messages handed to the kernel
  std::atomic<uint64_t> gso_sends{0};  // of them, with UDP_SEGMENT
  std::atomic<uint64_t> gso_packets{0};
  std::atomic<uint64_t> calls{0};  // sendmmsg calls
  std::atomic<uint64_t> gso_refused{0};
  std::atomic<uint64_t> waits{0};  // the socket's buffer was full and we waited
  std::atomic<uint64_t> dropped_full{0};
  std::atomic<uint64_t> dropped_unreachable{0};
  std::atomic<uint64_t> dropped_denied{0};
  std::atomic<uint64_t> dropped_size{0};
  std::atomic<uint64_t> dropped_other{0};

  // Adds what another thread's sender counted, and sets that to nothing. Neither may be counting meanwhile.
  void fold(SendCounters& from);
};

// A socket as the sender sees it.
struct SendSocket {
  int fd = -1;
  // On a raw link: what sends instead of the descriptor, and from which port.
  RawPort* raw = nullptr;
  uint16_t raw_port = 0;
  std::atomic<bool> gso{false};
};

// Equal-sized packets in a row, the last one perhaps shorter.
struct SendRun {
  static constexpr size_t kPiecesMax = 8;
  std::array<iovec, kPiecesMax> pieces;
  size_t piece_count = 0;
  std::span<const LoggedPacket> packets;
  uint32_t segment_bytes = 0;
  uint32_t bytes = 0;
  uint64_t octets = 0;
  alignas(cmsghdr) std::array<uint8_t, CMSG_SPACE(sizeof(uint16_t))> control;
};

// Cuts `packets` into runs; `runs` is reused between frames.
void cut_runs(std::span<const LoggedPacket> packets, std::vector<SendRun>& runs);

class GsoSender {
 public:
  explicit GsoSender(SendCounters& counters) : counters_(counters) {}

  // Queues every run for a receiver. The runs must live until `flush`.
  void add(SendSocket& socket, Receiver& receiver, const std::vector<SendRun>& runs);
  // Hands all that is queued to the kernel.
  void flush();

 private:
  static constexpr size_t kBatch = 64;
  struct Queued {
    Receiver* receiver;
    const SendRun* run;
  };

  void queue(SendSocket& socket, Receiver& receiver, const SendRun& run);
  void send_singly(Receiver& receiver, const SendRun& run);
  void sent(const Queued& entry, bool gso);
  // What becomes of the first unsent message after `error`: true when it is done with (sent
  // otherwise, or dropped).
  bool failed(const Queued& entry, bool gso, int error);
  void send_raw(SendSocket& socket, Receiver& receiver, const SendRun& run);
  bool wait_writable();
  void drop(Receiver& receiver, uint64_t packets, int error);

  SendCounters& counters_;
  SendSocket* socket_ = nullptr;
  RawPort* raw_ = nullptr;  // has something that is not published
  size_t count_ = 0;
  bool full_ = false;  // the socket stayed full for a whole wait: do not wait again in this flush
  std::array<mmsghdr, kBatch> headers_ = {};
  std::array<Queued, kBatch> queued_ = {};
};

}  // namespace apo
