// The native thread of a runtime on a raw link. It takes packets from its link, checks them,
// answers echo requests and unopened ports itself, and hands the rest, parsed, to the worker that
// owns their flow; and it takes what the workers send, completes it and gives it to the link.
// Everything it drops is counted by reason.
//
// It owns no memory that JavaScript can see: pool, rings and counters are shared, and whoever
// starts the thread keeps them alive until `stop` has returned.
#pragma once

#include <pthread.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "ip/icmp_output.h"
#include "ip/ip_address.h"
#include "ip/ip_input.h"
#include "ip/steer_hash.h"
#include "links/link.h"
#include "memory/doorbell.h"
#include "memory/frame_pool.h"
#include "memory/ring.h"
#include "thread/link_counters.h"

namespace apo {

inline constexpr size_t kWorkersMax = 16;
inline constexpr size_t kPortBitmapWords = 65'536 / 32;

// What a worker shares with the native thread.
struct WorkerPort {
  RingMemory receive;   // native thread to worker
  RingMemory transmit;  // worker to native thread
  Doorbell doorbell;    // rung when the worker sleeps and packets have come
  // Bit p: the worker has something at port p.
  std::span<uint32_t, kPortBitmapWords> open_udp_ports;
  std::span<uint32_t, kPortBitmapWords> open_tcp_ports;
};

struct NativeThreadOptions {
  AddressSet addresses;
  SteerKey steer_key;
  FramePool pool;
  LinkCounters counters;
  Doorbell doorbell;  // the thread's own; with an eventfd when the link has descriptors
  std::span<uint32_t, kShards> shard_owners;  // worker index + 1; 0: nobody
};

class NativeThread {
 public:
  NativeThread(const NativeThreadOptions& options, std::shared_ptr<Link> link);
  ~NativeThread() { stop(); }
  NativeThread(const NativeThread&) = delete;
  NativeThread& operator=(const NativeThread&) = delete;

  // 0, or the errno of why no thread could be made.
  [[nodiscard]] int start();
  // Ends and joins the thread; what is under way is dropped and counted. Idempotent.
  void stop();

  // The eventfd that wakes the thread; -1: it sleeps on its doorbell's word. Known once it has started.
  [[nodiscard]] int wake_fd() const { return options_.doorbell.event_fd(); }

  // Both return when the thread has done it, so that the memory of a detached worker may go.
  // Detaching sends what the worker had published and takes back what it had not read. False: no
  // such worker, or the thread has ended.
  bool attach_worker(size_t index, const WorkerPort& port);
  bool detach_worker(size_t index);

 private:
  struct Worker {
    explicit Worker(const WorkerPort& shared)
        : port(shared), receive(shared.receive), transmit(shared.transmit) {}
    WorkerPort port;
    RingProducer receive;
    RingConsumer transmit;
  };

  static void* entry(void* self);
  void run();
  void run_command();
  bool submit_command(size_t index, std::optional<WorkerPort> port);
  void sleep();
  void wait(uint32_t seen);
  void finish();

  size_t receive_batch();
  // These answer whether the packet's frame has been passed on.
  bool handle(const IncomingPacket& packet, uint64_t now_us);
  bool steer(const InputPacket& input, const IncomingPacket& packet, uint64_t now_us);
  bool deliver(Worker& worker, const InputPacket& input, const IncomingPacket& packet,
               uint32_t hash, uint64_t now_us);
  bool refuse_port(const InputPacket& input, std::span<const uint8_t> bytes, uint64_t now_us);
  void answer_echo(const InputPacket& input, std::span<const uint8_t> bytes);
  bool send_own(size_t length);
  void publish_received();
  [[nodiscard]] std::span<uint8_t> bytes_of(const IncomingPacket& packet) const {
    return {options_.pool.own_frame(packet.frame) + packet.offset, packet.length};
  }

  size_t transmit_batch(Worker& worker);
  void send_prepared(size_t count);
  void remove_worker(std::unique_ptr<Worker>& worker);
  void count(LinkCounter counter, uint64_t amount = 1) { options_.counters.add(counter, amount); }

  NativeThreadOptions options_;
  const std::shared_ptr<Link> link_;
  std::array<std::unique_ptr<Worker>, kWorkersMax> workers_;
  ErrorBudget error_budget_{options_.steer_key};
  std::array<OutgoingPacket, Link::kBatch> outgoing_;
  std::array<uint32_t, Link::kBatch> outgoing_refs_{};
  std::unique_ptr<uint8_t[]> reply_;  // one packet of the thread's own
  std::vector<pollfd> polled_;        // the doorbell's eventfd and the link's descriptors
  uint64_t now_us_ = 0;               // of this turn
  uint64_t corrupt_counted_ = 0;

  pthread_t thread_{};
  bool started_ = false;
  std::atomic<bool> stopping_{false};

  // One command at a time: attach or detach.
  std::mutex command_mutex_;
  std::condition_variable command_done_;
  std::atomic<bool> command_pending_{false};
  size_t command_index_ = 0;
  std::optional<WorkerPort> command_port_;
  bool command_result_ = false;
};

}  // namespace apo
