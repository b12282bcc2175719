// The `mem` link: a virtual wire in memory between the runtimes of one process, with a switch in
// it.
//
// A wire has endpoints, each with its addresses and a bounded inbox. A sender finds the endpoint by
// the packet's destination address and copies the packet into its inbox; a full inbox drops it,
// which the sender is told. An inbox has many producers, who take turns by a mutex, and one
// consumer, who takes none.
//
// The wire may be a bad one (impairment.h). The sender's thread decides what becomes of a packet, under
// the receiver's mutex, and counts it (wire.*): for the sender it has been sent. One that comes later
// waits in the receiver's inbox, whose thread takes it when it is due.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "ip/ip_address.h"
#include "links/link.h"
#include "links/link_kinds.h"
#include "links/mem_inbox.h"
#include "links/mem_plug.h"

namespace apo {

struct MemWireOptions {
  static constexpr size_t kMtuMin = 1280;  // IPv6's least (RFC 8200 5)
  static constexpr size_t kMtuMax = 65'000;
  static constexpr size_t kInboxBytesMin = 256 * 1024;
  static constexpr size_t kInboxBytesMax = 256 * 1024 * 1024;

  size_t mtu = 1500;
  size_t inbox_bytes = 4 * 1024 * 1024;  // an endpoint's; rounded up to a power of two
  ImpairmentSettings impairment;         // its `mtu` stays 0
};

class MemWire;

// One runtime's plug in a wire.
class MemEndpoint final : public Link,
                          public MemPlug,
                          public std::enable_shared_from_this<MemEndpoint> {
 public:
  MemEndpoint(std::shared_ptr<MemWire> wire, uint32_t number);

  [[nodiscard]] int start(const LinkContext& context) override;
  [[nodiscard]] size_t mtu() const override { return plug_mtu_; }
  // A wire between runtimes of one process loses no facts: what one end left undone, the other does.
  [[nodiscard]] LinkFeatures features() const override;
  [[nodiscard]] size_t receive(std::span<IncomingPacket> packets) override;
  void send(std::span<OutgoingPacket> packets) override;
  [[nodiscard]] uint64_t deadline_us() const override { return inbox_.due_us(); }
  [[nodiscard]] bool prepare_sleep() override { return inbox_.prepare_sleep(); }
  void finish_sleep() override { inbox_.finish_sleep(); }
  void close() override;

  void deliver(const MemSender& sender, const MemTable& table,
               std::span<OutgoingPacket* const> packets) override;
  [[nodiscard]] bool reflect(const MemSender& sender, uint32_t mirror,
                             std::span<const MemReflection> packets) override;
  void unplug() override;

 private:
  // A packet at this end of a line, with what has happened to it before.
  struct Arrival {
    std::span<const uint8_t> bytes;
    Offload offload;
    uint32_t corrupt_bit = ImpairmentDecision::kNoBit;
    bool mirrored = false;
  };

  // A packet to a multicast group: to everybody else, as on an Ethernet.
  void flood(const MemSender& sender, const MemTable& table, OutgoingPacket& packet);
  // All under `producers_`.
  LinkCounter pass_line(Impairment& line, const MemSender& sender, const Arrival& arrival,
                        uint64_t at_us, uint64_t now_us);
  LinkCounter put(const Arrival& arrival, uint32_t corrupt_bit, uint64_t due_us);
  void publish();

  const std::shared_ptr<MemWire> wire_;
  std::optional<LinkContext> context_;  // the thread's; its doorbell is guarded by `producers_`
  MemInbox inbox_;                      // its producing end is guarded by `producers_`
  std::atomic<bool> closed_{false};     // nothing waits any longer
};

class MemWire : public std::enable_shared_from_this<MemWire> {
 public:
  // Runtimes and mirrors.
  static constexpr size_t kEndpointsMax = 1024;

  // A wire may be found by its number from every thread of the process, for as long as somebody
  // holds it.
  [[nodiscard]] static std::shared_ptr<MemWire> create(const MemWireOptions& options);
  [[nodiscard]] static std::shared_ptr<MemWire> find(uint32_t id);
  ~MemWire();

  [[nodiscard]] uint32_t id() const { return id_; }
  [[nodiscard]] const MemWireOptions& options() const { return options_; }
  // Runtimes.
  [[nodiscard]] size_t endpoints();

  [[nodiscard]] ImpairmentSettings impairment();
  // Whether packets have fates of their own just now.
  [[nodiscard]] bool decides() const { return decides_.load(std::memory_order_relaxed); }
  // For every packet that is sent from here on. The seed stays.
  void impair(const ImpairmentSettings& settings);

  // Null: an address is taken already (`taken` says which) or the wire is full.
  [[nodiscard]] std::shared_ptr<MemEndpoint> plug_in(const AddressSet& addresses, IpAddress* taken);
  // The same for a mirror: its number, or 0.
  [[nodiscard]] uint32_t add_mirror(const AddressSet& addresses, IpAddress* taken);
  // Takes a mirror or an endpoint out. Nothing, when it is not plugged in.
  void unplug(uint32_t number);

  // Puts bytes on the wire as they are, whatever they are, for the plug with address `to`, over no bad
  // line: for tests and for replaying captures. The answer is as in OutgoingPacket.
  LinkCounter inject(const IpAddress& to, std::span<const uint8_t> bytes);

 private:
  friend class MemEndpoint;

  MemWire(uint32_t id, const MemWireOptions& options);
  // The table as it is now; a sender keeps it for one batch.
  [[nodiscard]] std::shared_ptr<const MemTable> table();
  // Under `mutex_`.
  [[nodiscard]] bool plug(const AddressSet& addresses, const std::shared_ptr<MemPlug>& plug,
                          IpAddress* taken);

  const uint32_t id_;
  const MemWireOptions options_;
  std::mutex mutex_;  // guards all below; taken before a plug's
  ImpairmentSettings impairment_;
  std::atomic<bool> decides_{false};  // impairment_.decides(), for senders
  std::shared_ptr<const MemTable> table_;
  std::vector<std::shared_ptr<MemPlug>> plugs_;
  size_t mirrors_ = 0;
  uint32_t next_number_ = 1;
};

// Settings: number "wire", the id of a wire of this process. EADDRINUSE: it has one of the addresses
// already; ENFILE: it is full; ENOENT: there is no such wire.
[[nodiscard]] OpenedLink open_mem_link(const LinkSettings& settings);

}  // namespace apo
