#include "thread/native_thread.h"

#include <signal.h>
#include <sys/prctl.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "ip/ip_output.h"

#include "util/relax.h"

namespace apo {
namespace {

// Empty polls before the thread sleeps: a few microseconds, about what a futex round trip costs.
// Longer would take the processor from the very worker whose packets are waited for on a machine
// with two of them.
constexpr int kIdlePolls = 100;

// The longest sleep before a timer: an hour, so that no sum overflows.
constexpr uint64_t kSleepMaxUs = 3'600'000'000;

}  // namespace

NativeThread::NativeThread(const NativeThreadOptions& options, std::shared_ptr<Link> link)
    : doorbell_(options.doorbell),
      context_{options.addresses,
               options.steer_key,
               options.pool,
               options.counters,
               std::move(link),
               options.capture,
               PathMtuCache(options.steer_key),
               options.guard ? std::make_unique<GuardView>(options.guard) : nullptr,
               options.groups ? options.groups : std::make_shared<GroupMembership>(1)},
      transmit_(context_),
      receive_(context_, transmit_, options.shard_owners, workers_) {}

int NativeThread::start() {
  if (const int error =
          context_.link->start({context_.pool, context_.counters, doorbell_.without_event()})) {
    return error;
  }
  const std::span<const pollfd> descriptors = context_.link->poll_set();
  if (descriptors.empty()) {
    doorbell_ = doorbell_.without_event();
  } else {
    if (doorbell_.event_fd() < 0) return EBADF;
    polled_.push_back({doorbell_.event_fd(), POLLIN, 0});
    polled_.insert(polled_.end(), descriptors.begin(), descriptors.end());
  }
  // Signals are the main thread's matter: this one is born with all of them blocked.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int error = pthread_create(&thread_, nullptr, &NativeThread::entry, this);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  started_ = error == 0;
  if (started_) pthread_setname_np(thread_, "apo-layer3");
  return error;
}

void NativeThread::stop() {
  if (!started_) return;
  context_.link->close();
  stopping_.store(true, std::memory_order_seq_cst);
  doorbell_.ring();
  pthread_join(thread_, nullptr);
  started_ = false;
}

void* NativeThread::entry(void* self) {
  static_cast<NativeThread*>(self)->run();
  return nullptr;
}

void NativeThread::run() {
  // Links have deadlines in microseconds; the kernel would let every sleep run 50 of them longer.
  prctl(PR_SET_TIMERSLACK, 1000);
  int idle_polls = 0;
  while (!stopping_.load(std::memory_order_relaxed)) {
    context_.now_us = clock_us();
    if (command_pending_.load(std::memory_order_acquire)) run_command();
    size_t work = receive_.receive_batch();
    if (context_.now_us >= context_.link->deadline_us()) context_.link->tick(context_.now_us);
    if (context_.now_us >= receive_.deadline_us()) receive_.tick();
    if (context_.now_us >= context_.groups->deadline_us()) transmit_.send_group_reports();
    for (auto& worker : workers_) {
      if (worker) work += transmit_.transmit_batch(*worker);
    }
    if (work > 0) {
      idle_polls = 0;
    } else if (++idle_polls < kIdlePolls) {
      relax();
    } else {
      sleep();
      idle_polls = 0;
    }
  }
  finish();
}

void NativeThread::sleep() {
  const uint32_t seen = doorbell_.read();
  bool idle = context_.link->prepare_sleep();
  for (auto& worker : workers_) {
    if (worker && !worker->transmit.sleep()) idle = false;
  }
  if (idle && !command_pending_.load(std::memory_order_seq_cst) &&
      !stopping_.load(std::memory_order_seq_cst)) {
    count(LinkCounter::kPollSleeps);
    wait(seen);
  }
  context_.link->finish_sleep();
  uint64_t corrupt = 0;
  for (auto& worker : workers_) {
    if (!worker) continue;
    worker->transmit.wake();
    corrupt += worker->transmit.corrupt() + worker->receive.corrupt();
  }
  if (corrupt > corrupt_counted_) count(LinkCounter::kRingCorrupt, corrupt - corrupt_counted_);
  corrupt_counted_ = corrupt;
}

void NativeThread::wait(uint32_t seen) {
  int64_t timeout_us = -1;
  const uint64_t deadline_us = std::min(
      {context_.link->deadline_us(), receive_.deadline_us(), context_.groups->deadline_us()});
  if (deadline_us != Link::kNever) {
    const uint64_t now_us = clock_us();
    if (deadline_us <= now_us) return;
    timeout_us = static_cast<int64_t>(std::min<uint64_t>(deadline_us - now_us, kSleepMaxUs));
  }
  if (polled_.empty()) {
    doorbell_.wait(seen, timeout_us);
    return;
  }
  timespec timeout{};
  if (timeout_us >= 0) {
    timeout.tv_sec = static_cast<time_t>(timeout_us / 1'000'000);
    timeout.tv_nsec = static_cast<long>(timeout_us % 1'000'000 * 1000);
  }
  const int ready =
      ppoll(polled_.data(), polled_.size(), timeout_us >= 0 ? &timeout : nullptr, nullptr);
  if (ready > 0 && polled_.front().revents != 0) doorbell_.drain_event();
}

// The end: workers' packets still go out, what came in is counted, every frame goes back.
void NativeThread::finish() {
  if (command_pending_.load(std::memory_order_acquire)) run_command();
  for (auto& worker : workers_) {
    if (worker) remove_worker(worker);
  }
  receive_.clear();
  std::array<IncomingPacket, Link::kBatch> packets;
  while (const size_t received = context_.link->receive(packets)) {
    count(LinkCounter::kRxPackets, received);
    for (size_t i = 0; i < received; ++i) {
      count(LinkCounter::kRxBytes, packets[i].length);
      context_.pool.release(packets[i].frame);
    }
    count(LinkCounter::kRxDroppedClosing, received);
  }
}

bool NativeThread::attach_worker(size_t index, const WorkerPort& port) {
  return submit_command(index, port);
}

bool NativeThread::detach_worker(size_t index) { return submit_command(index, std::nullopt); }

bool NativeThread::submit_command(size_t index, std::optional<WorkerPort> port) {
  if (!started_ || index >= kPlacesMax) return false;
  std::unique_lock lock(command_mutex_);
  command_index_ = index;
  command_port_ = port;
  command_pending_.store(true, std::memory_order_seq_cst);
  doorbell_.ring();
  command_done_.wait(lock, [this] { return !command_pending_.load(std::memory_order_acquire); });
  return command_result_;
}

void NativeThread::run_command() {
  const std::lock_guard lock(command_mutex_);
  std::unique_ptr<AttachedWorker>& worker = workers_[command_index_];
  command_result_ = command_port_.has_value() != (worker != nullptr);
  if (command_result_ && command_port_) {
    worker = std::make_unique<AttachedWorker>(*command_port_);
  } else if (command_result_) {
    remove_worker(worker);
  }
  command_pending_.store(false, std::memory_order_release);
  command_done_.notify_all();
}

void NativeThread::remove_worker(std::unique_ptr<AttachedWorker>& worker) {
  while (transmit_.transmit_batch(*worker) > 0) {
  }
  // The worker is gone (or stopping), so this thread may stand in for it at the receiving end.
  RingConsumer unread(worker->port.receive);
  (void)worker->receive.publish();
  RingSlot slot;
  while (unread.take(slot)) {
    context_.pool.release(slot[0]);
    count(LinkCounter::kRxReclaimed);
  }
  unread.release();
  worker.reset();
}

}  // namespace apo
