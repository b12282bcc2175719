// From the workers to the link: completes what they send, splits what is too long for the path or too
// much for the link, and sends what the native thread has to say by itself.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "ip/fragmentation.h"
#include "ip/ip_output.h"
#include "thread/packet_context.h"
#include "thread/worker_port.h"

namespace apo {

class TransmitPath {
 public:
  explicit TransmitPath(PacketContext& context);

  // Takes up to a batch from the worker's ring. How many.
  size_t transmit_batch(AttachedWorker& worker);

  // Sends a whole IP packet of the thread's own; a longer one than the path takes goes in pieces. True:
  // the link took it. Such packets are not among the workers' tx counters.
  bool send_own(std::span<const uint8_t> packet);

  // Says which groups we want, as far as it is due.
  void send_group_reports();

  // Packets to addresses of our own, for the other way to take: in frames with a count of one each.
  [[nodiscard]] std::vector<IncomingPacket>& looped() { return looped_; }

 private:
  enum class Way : uint8_t {
    kDirect,    // with the batch, as it is
    kRefused,   // for a reason
    kLooped,    // to an address of our own
    kFragment,  // in pieces of the path's MTU
    kSegment,   // a super-packet that the link does not take
  };
  struct Route {
    Way way = Way::kDirect;
    LinkCounter reason = LinkCounter::kTxPackets;
    size_t mtu = 0;
  };

  Route route(const OutputPacket& output);
  Route route_super_packet(const OutputPacket& output, size_t mtu);
  // Of a packet that does not go out as it is; what became of it.
  LinkCounter send_apart(const OutputPacket& output, const Route& route);
  LinkCounter send_fragments(std::span<const uint8_t> packet, size_t mtu);
  template <typename Splitter>
  LinkCounter send_split(Splitter& splitter, size_t piece_max, LinkCounter counter);
  LinkCounter loop_back(std::span<const uint8_t> packet, const Offload& offload);
  LinkCounter send_pieces(size_t count);
  void send_batch(size_t prepared);
  void account(const OutgoingPacket& packet);
  void count(LinkCounter counter, uint64_t amount = 1) { context_.count(counter, amount); }

  PacketContext& context_;
  IdentificationSource identifications_;
  std::array<OutgoingPacket, Link::kBatch> outgoing_;
  std::array<uint32_t, Link::kBatch> outgoing_refs_{};
  std::array<OutgoingPacket, Link::kBatch> pieces_;
  std::unique_ptr<uint8_t[]> piece_bytes_;
  std::vector<IncomingPacket> looped_;
};

}  // namespace apo
