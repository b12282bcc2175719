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
#include "thread/receive_path.h"
#include "thread/transmit_path.h"
#include "thread/worker_port.h"

namespace apo {

struct NativeThreadOptions {
  AddressSet addresses;
  SteerKey steer_key;
  FramePool pool;
  LinkCounters counters;
  Doorbell doorbell;  // the thread's own; with an eventfd when the link has descriptors
  std::span<uint32_t, kShards> shard_owners;  // worker index + 1; 0: nobody
  std::shared_ptr<PacketCapture> capture;     // null: nobody looks
  std::shared_ptr<Guard> guard;               // null: everybody may
  std::shared_ptr<GroupMembership> groups{};  // null: none of its own
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
  [[nodiscard]] int wake_fd() const { return doorbell_.event_fd(); }

  // Both return when the thread has done it, so that the memory of a detached worker may go.
  // Detaching sends what the worker had published and takes back what it had not read. False: no
  // such worker, or the thread has ended.
  bool attach_worker(size_t index, const WorkerPort& port);
  bool detach_worker(size_t index);

 private:
  static void* entry(void* self);
  void run();
  void run_command();
  bool submit_command(size_t index, std::optional<WorkerPort> port);
  void sleep();
  void wait(uint32_t seen);
  void finish();

  void remove_worker(std::unique_ptr<AttachedWorker>& worker);
  void count(LinkCounter counter, uint64_t amount = 1) { context_.count(counter, amount); }

  Doorbell doorbell_;
  PacketContext context_;
  ReceivePath::Workers workers_;
  TransmitPath transmit_;
  ReceivePath receive_;
  std::vector<pollfd> polled_;  // the doorbell's eventfd and the link's descriptors
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
