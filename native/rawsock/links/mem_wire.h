// The `mem` link: a virtual wire in memory between the runtimes of one process, with a switch in
// it.
//
// A wire has endpoints, each with its addresses and a bounded inbox. A sender finds the endpoint by
// the packet's destination address and copies the packet into its inbox; a full inbox drops it,
// which the sender is told. An inbox has many producers, who take turns by a mutex, and one
// consumer, who takes none.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "ip/ip_address.h"
#include "links/link.h"
#include "links/link_kinds.h"
#include "memory/doorbell.h"

namespace apo {

struct MemWireOptions {
  static constexpr size_t kMtuMin = 1280;  // IPv6's least (RFC 8200 5)
  static constexpr size_t kMtuMax = 65'000;
  static constexpr size_t kInboxBytesMin = 256 * 1024;
  static constexpr size_t kInboxBytesMax = 256 * 1024 * 1024;

  size_t mtu = 1500;
  size_t inbox_bytes = 4 * 1024 * 1024;  // an endpoint's; a power of two
};

// A byte ring of whole packets. Each record starts at a multiple of 16 and is a 16-byte header (the
// packet's length, or kSkip where the next record is at the ring's start; its Offload) and the
// packet, in one piece.
class MemInbox {
 public:
  explicit MemInbox(size_t bytes);

  // Producers, one at a time. False: no room. The consumer sees the packet after `publish`.
  [[nodiscard]] bool push(std::span<const uint8_t> packet, const Offload& offload);
  // True: the consumer sleeps, and it is the caller who must wake it.
  [[nodiscard]] bool publish();

  // Consumer. The view is valid until `release`; empty when there is nothing.
  [[nodiscard]] std::span<const uint8_t> take(Offload& offload);
  void release() { tail_.store(reading_, std::memory_order_release); }
  [[nodiscard]] bool prepare_sleep();
  void finish_sleep() { sleeping_.store(0, std::memory_order_seq_cst); }

 private:
  static constexpr uint32_t kSkip = 0xffffffff;
  struct Record {
    uint32_t length = 0;
    Offload offload;
  };
  static constexpr size_t kHeaderBytes = 16;
  static_assert(sizeof(Record) <= kHeaderBytes);

  void put_record(uint64_t position, const Record& record);

  std::unique_ptr<uint8_t[]> memory_;
  const size_t capacity_;
  // Positions are free-running; each side's own ones stand apart from the other's.
  alignas(64) std::atomic<uint64_t> head_{0};
  uint64_t writing_ = 0;
  alignas(64) std::atomic<uint64_t> tail_{0};
  uint64_t reading_ = 0;
  alignas(64) std::atomic<uint32_t> sleeping_{0};
};

class MemWire;

// One runtime's plug in a wire.
class MemEndpoint final : public Link, public std::enable_shared_from_this<MemEndpoint> {
 public:
  MemEndpoint(std::shared_ptr<MemWire> wire, const AddressSet& addresses);

  [[nodiscard]] int start(const LinkContext& context) override;
  [[nodiscard]] size_t mtu() const override;
  // A wire between runtimes of one process loses no facts: what one end left undone, the other does.
  [[nodiscard]] LinkFeatures features() const override { return {true, true, true}; }
  [[nodiscard]] size_t receive(std::span<IncomingPacket> packets) override;
  void send(std::span<OutgoingPacket> packets) override;
  [[nodiscard]] bool prepare_sleep() override { return inbox_.prepare_sleep(); }
  void finish_sleep() override { inbox_.finish_sleep(); }
  void close() override;

  [[nodiscard]] const AddressSet& addresses() const { return addresses_; }

 private:
  friend class MemWire;

  // Delivers packets that all go to this endpoint. Called by senders' threads.
  void deliver(std::span<OutgoingPacket* const> packets);
  // After this nobody rings the doorbell any more.
  void unplug();

  const std::shared_ptr<MemWire> wire_;
  const AddressSet addresses_;
  std::optional<LinkContext> context_;  // the thread's; its doorbell is guarded by `producers_`
  MemInbox inbox_;
  std::mutex producers_;  // guards the inbox's producing end and the one below
  bool plugged_ = true;
};

class MemWire : public std::enable_shared_from_this<MemWire> {
 public:
  static constexpr size_t kEndpointsMax = 1024;

  // A wire may be found by its number from every thread of the process, for as long as somebody
  // holds it.
  [[nodiscard]] static std::shared_ptr<MemWire> create(const MemWireOptions& options);
  [[nodiscard]] static std::shared_ptr<MemWire> find(uint32_t id);
  ~MemWire();

  [[nodiscard]] uint32_t id() const { return id_; }
  [[nodiscard]] const MemWireOptions& options() const { return options_; }
  [[nodiscard]] size_t endpoints();

  // Null: an address is taken already (`taken` says which) or the wire is full.
  [[nodiscard]] std::shared_ptr<MemEndpoint> plug_in(const AddressSet& addresses, IpAddress* taken);
  void unplug(const std::shared_ptr<MemEndpoint>& endpoint);

  // Puts bytes on the wire as they are, whatever they are, for the endpoint with address `to`: for
  // tests and for replaying captures. The answer is as in OutgoingPacket.
  LinkCounter inject(const IpAddress& to, std::span<const uint8_t> bytes);

 private:
  friend class MemEndpoint;

  struct AddressHash {
    size_t operator()(const IpAddress& address) const;
  };
  using Table = std::unordered_map<IpAddress, std::shared_ptr<MemEndpoint>, AddressHash>;

  MemWire(uint32_t id, const MemWireOptions& options);
  // The table as it is now; a sender keeps it for one batch.
  [[nodiscard]] std::shared_ptr<const Table> table();

  const uint32_t id_;
  const MemWireOptions options_;
  std::mutex mutex_;  // guards the two below
  std::shared_ptr<const Table> table_;
  size_t endpoints_ = 0;
};

// Settings: number "wire", the id of a wire of this process. EADDRINUSE: it has one of the addresses
// already; ENFILE: it is full; ENOENT: there is no such wire.
[[nodiscard]] OpenedLink open_mem_link(const LinkSettings& settings);

}  // namespace apo
