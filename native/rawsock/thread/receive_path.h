// From the link to the workers: what is acceptable is answered here or handed, parsed, to the worker
// that owns its flow; the rest is dropped and counted by reason.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "ip/icmp_output.h"
#include "ip/ip_input.h"
#include "ip/reassembly.h"
#include "thread/packet_context.h"
#include "thread/transmit_path.h"
#include "thread/worker_port.h"

namespace apo {

class ReceivePath {
 public:
  using Workers = std::array<std::unique_ptr<AttachedWorker>, kPlacesMax>;

  ReceivePath(PacketContext& context, TransmitPath& transmit,
              std::span<uint32_t, kShards> shard_owners, Workers& workers);

  // Takes up to a batch from the link, and what the runtime has sent to itself. How many packets.
  size_t receive_batch();

  // When `tick` wants to be called: fragments whose others never came.
  [[nodiscard]] uint64_t deadline_us() const { return reassembler_.next_deadline_us(); }
  void tick();

  // Drops what waits here.
  void clear();

 private:
  // These answer whether the packet's frame has been passed on.
  bool handle(const IncomingPacket& packet, bool looped);
  bool dispatch(const InputPacket& input, const IncomingPacket& packet);
  bool reassemble(const InputPacket& input, const IncomingPacket& packet, bool looped);
  bool steer(const InputPacket& input, const IncomingPacket& packet);
  [[nodiscard]] AttachedWorker* engine_of(const InputPacket& input);
  bool deliver(AttachedWorker& worker, const InputPacket& input, const IncomingPacket& packet,
               uint32_t hash);

  void handle_all(std::span<const IncomingPacket> packets, bool looped);
  void learn_path_mtu(const InputPacket& input, std::span<const uint8_t> bytes);
  void answer_echo(const InputPacket& input, std::span<uint8_t> bytes);
  void refuse_port(const InputPacket& input, std::span<const uint8_t> bytes);
  void send_error(const IcmpError& error, uint8_t version, const uint8_t* to,
                  std::span<const uint8_t> offender, LinkCounter counter);
  bool drop(LinkCounter reason, std::span<const uint8_t> bytes, const Offload& offload);
  void publish();
  [[nodiscard]] std::span<uint8_t> bytes_of(const IncomingPacket& packet) const {
    return {context_.pool.own_frame(packet.frame) + packet.offset, packet.length};
  }
  void count(LinkCounter counter, uint64_t amount = 1) { context_.count(counter, amount); }

  PacketContext& context_;
  TransmitPath& transmit_;
  std::span<uint32_t, kShards> shard_owners_;  // worker index + 1; 0: nobody
  Workers& workers_;
  ErrorBudget error_budget_;
  Reassembler reassembler_;
  std::unique_ptr<uint8_t[]> reply_;  // one packet of the thread's own
};

}  // namespace apo
