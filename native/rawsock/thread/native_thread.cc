#include "thread/native_thread.h"

#include <signal.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "ip/ip_output.h"

namespace apo {
namespace {

// Empty polls before the thread sleeps: a few microseconds, about what a futex round trip costs.
// Longer would take the processor from the very worker whose packets are waited for on a machine
// with two of them.
constexpr int kIdlePolls = 100;

// The longest sleep before a timer: an hour, so that no sum overflows.
constexpr uint64_t kSleepMaxUs = 3'600'000'000;

// The largest reply built here: an echo reply as long as its request.
constexpr size_t kReplyBytes = 65'600;

uint64_t monotonic_us() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000 + static_cast<uint64_t>(now.tv_nsec) / 1000;
}

void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

PacketKind packet_kind(InputKind kind) {
  if (kind == InputKind::kEchoReply) return PacketKind::kEchoReply;
  return kind == InputKind::kIcmpError ? PacketKind::kIcmpError : PacketKind::kData;
}

}  // namespace

NativeThread::NativeThread(const NativeThreadOptions& options, std::shared_ptr<Link> link)
    : options_(options), link_(std::move(link)), reply_(new uint8_t[kReplyBytes]) {}

int NativeThread::start() {
  if (const int error =
          link_->start({options_.pool, options_.counters, options_.doorbell.without_event()})) {
    return error;
  }
  const std::span<const pollfd> descriptors = link_->poll_set();
  if (descriptors.empty()) {
    options_.doorbell = options_.doorbell.without_event();
  } else {
    if (options_.doorbell.event_fd() < 0) return EBADF;
    polled_.push_back({options_.doorbell.event_fd(), POLLIN, 0});
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
  link_->close();
  stopping_.store(true, std::memory_order_seq_cst);
  options_.doorbell.ring();
  pthread_join(thread_, nullptr);
  started_ = false;
}

void* NativeThread::entry(void* self) {
  static_cast<NativeThread*>(self)->run();
  return nullptr;
}

void NativeThread::run() {
  int idle_polls = 0;
  while (!stopping_.load(std::memory_order_relaxed)) {
    now_us_ = monotonic_us();
    if (command_pending_.load(std::memory_order_acquire)) run_command();
    size_t work = receive_batch();
    if (now_us_ >= link_->deadline_us()) link_->tick(now_us_);
    for (auto& worker : workers_) {
      if (worker) work += transmit_batch(*worker);
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
  const uint32_t seen = options_.doorbell.read();
  bool idle = link_->prepare_sleep();
  for (auto& worker : workers_) {
    if (worker && !worker->transmit.sleep()) idle = false;
  }
  if (idle && !command_pending_.load(std::memory_order_seq_cst) &&
      !stopping_.load(std::memory_order_seq_cst)) {
    count(LinkCounter::kPollSleeps);
    wait(seen);
  }
  link_->finish_sleep();
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
  if (const uint64_t deadline_us = link_->deadline_us(); deadline_us != Link::kNever) {
    const uint64_t now_us = monotonic_us();
    if (deadline_us <= now_us) return;
    timeout_us = static_cast<int64_t>(std::min<uint64_t>(deadline_us - now_us, kSleepMaxUs));
  }
  if (polled_.empty()) {
    options_.doorbell.wait(seen, timeout_us);
    return;
  }
  timespec timeout{};
  if (timeout_us >= 0) {
    timeout.tv_sec = static_cast<time_t>(timeout_us / 1'000'000);
    timeout.tv_nsec = static_cast<long>(timeout_us % 1'000'000 * 1000);
  }
  const int ready =
      ppoll(polled_.data(), polled_.size(), timeout_us >= 0 ? &timeout : nullptr, nullptr);
  if (ready > 0 && polled_.front().revents != 0) options_.doorbell.drain_event();
}

// The end: workers' packets still go out, what came in is counted, every frame goes back.
void NativeThread::finish() {
  if (command_pending_.load(std::memory_order_acquire)) run_command();
  for (auto& worker : workers_) {
    if (worker) remove_worker(worker);
  }
  std::array<IncomingPacket, Link::kBatch> packets;
  while (const size_t received = link_->receive(packets)) {
    count(LinkCounter::kRxPackets, received);
    for (size_t i = 0; i < received; ++i) {
      count(LinkCounter::kRxBytes, packets[i].length);
      options_.pool.release(packets[i].frame);
    }
    count(LinkCounter::kRxDroppedClosing, received);
  }
}

bool NativeThread::attach_worker(size_t index, const WorkerPort& port) {
  return submit_command(index, port);
}

bool NativeThread::detach_worker(size_t index) { return submit_command(index, std::nullopt); }

bool NativeThread::submit_command(size_t index, std::optional<WorkerPort> port) {
  if (!started_ || index >= kWorkersMax) return false;
  std::unique_lock lock(command_mutex_);
  command_index_ = index;
  command_port_ = port;
  command_pending_.store(true, std::memory_order_seq_cst);
  options_.doorbell.ring();
  command_done_.wait(lock, [this] { return !command_pending_.load(std::memory_order_acquire); });
  return command_result_;
}

void NativeThread::run_command() {
  const std::lock_guard lock(command_mutex_);
  std::unique_ptr<Worker>& worker = workers_[command_index_];
  command_result_ = command_port_.has_value() != (worker != nullptr);
  if (command_result_ && command_port_) {
    worker = std::make_unique<Worker>(*command_port_);
  } else if (command_result_) {
    remove_worker(worker);
  }
  command_pending_.store(false, std::memory_order_release);
  command_done_.notify_all();
}

void NativeThread::remove_worker(std::unique_ptr<Worker>& worker) {
  while (transmit_batch(*worker) > 0) {
  }
  // The worker is gone (or stopping), so this thread may stand in for it at the receiving end.
  RingConsumer unread(worker->port.receive);
  (void)worker->receive.publish();
  RingSlot slot;
  while (unread.take(slot)) {
    options_.pool.release(slot[0]);
    count(LinkCounter::kRxReclaimed);
  }
  unread.release();
  worker.reset();
}

size_t NativeThread::receive_batch() {
  std::array<IncomingPacket, Link::kBatch> packets;
  const size_t received = link_->receive(packets);
  if (received == 0) return 0;
  count(LinkCounter::kRxBatches);
  count(LinkCounter::kRxPackets, received);
  // The packets of a batch have one time of arrival: the next turn of this loop is microseconds off.
  now_us_ = monotonic_us();
  uint64_t bytes = 0;
  for (size_t i = 0; i < received; ++i) {
    bytes += packets[i].length;
    if (!handle(packets[i], now_us_)) options_.pool.release(packets[i].frame);
  }
  count(LinkCounter::kRxBytes, bytes);
  publish_received();
  return received;
}

void NativeThread::publish_received() {
  for (auto& worker : workers_) {
    if (!worker || worker->receive.unpublished() == 0 || !worker->receive.publish()) continue;
    worker->port.doorbell.ring();
    count(LinkCounter::kRxWakes);
  }
}

bool NativeThread::handle(const IncomingPacket& packet, uint64_t now_us) {
  const std::span<const uint8_t> bytes = bytes_of(packet);
  const InputPacket input = check_input(bytes, options_.addresses);
  if (input.kind == InputKind::kDropped) {
    count(input.drop_reason);
    return false;
  }
  if (input.kind == InputKind::kEchoRequest) {
    answer_echo(input, bytes);
    return false;
  }
  return steer(input, packet, now_us);
}

void NativeThread::answer_echo(const InputPacket& input, std::span<const uint8_t> bytes) {
  count(LinkCounter::kRxAnswered);
  if (send_own(build_echo_reply(input, bytes, {reply_.get(), kReplyBytes}))) {
    count(LinkCounter::kIcmpEchoReplies);
  }
}

bool NativeThread::steer(const InputPacket& input, const IncomingPacket& packet, uint64_t now_us) {
  const uint32_t hash = input.steer(options_.steer_key);
  const std::atomic_ref<uint32_t> owner(options_.shard_owners[shard_of(hash)]);
  const uint32_t index = owner.load(std::memory_order_relaxed) - 1;  // nobody: the largest number
  if (index >= kWorkersMax || !workers_[index]) {
    count(LinkCounter::kRxDroppedNoWorker);
    return false;
  }
  Worker& worker = *workers_[index];
  if (input.kind == InputKind::kUdp) {
    const uint32_t port = input.flow_destination_port;
    const std::atomic_ref<uint32_t> ports(worker.port.open_udp_ports[port / 32]);
    if ((ports.load(std::memory_order_relaxed) >> (port % 32) & 1) == 0) {
      return refuse_port(input, bytes_of(packet), now_us);
    }
  }
  return deliver(worker, input, packet, hash, now_us);
}

bool NativeThread::refuse_port(const InputPacket& input, std::span<const uint8_t> bytes,
                               uint64_t now_us) {
  count(LinkCounter::kRxDroppedUnopened);
  if (!error_budget_.take(input.version, input.source, now_us)) {
    count(LinkCounter::kIcmpLimited);
  } else if (send_own(build_port_unreachable(input, bytes, {reply_.get(), link_->mtu()}))) {
    count(LinkCounter::kIcmpUnreachables);
  }
  return false;
}

// Sends what stands in `reply_`. Packets of the thread's own are not among the workers' tx
// counters.
bool NativeThread::send_own(size_t length) {
  OutgoingPacket packet;
  packet.bytes = {reply_.get(), length};
  if (length > 0 && length <= link_->mtu()) link_->send({&packet, 1});
  if (packet.result == LinkCounter::kTxPackets) return true;
  count(LinkCounter::kIcmpUndelivered);
  return false;
}

bool NativeThread::deliver(Worker& worker, const InputPacket& input, const IncomingPacket& incoming,
                           uint32_t hash, uint64_t now_us) {
  PacketDescriptor packet;
  packet.frame = incoming.frame;
  packet.packet_offset = incoming.offset;
  packet.upper_offset = incoming.offset + input.upper_offset;
  packet.length = input.length;
  packet.protocol = input.protocol;
  packet.shard = static_cast<uint8_t>(shard_of(hash));
  packet.version = input.version;
  packet.checksum_state = input.checksum_state;
  packet.gso_kind = incoming.offload.gso_kind;
  packet.gso_bytes = incoming.offload.gso_bytes;
  packet.kind = packet_kind(input.kind);
  packet.label = packet.kind == PacketKind::kData ? input.flow_label : input.icmp_type_code;
  packet.hop_limit = input.hop_limit;
  packet.traffic_class = input.traffic_class;
  packet.received_us = now_us;
  if (!worker.receive.push(packet.encode())) {
    count(LinkCounter::kRxDroppedWorkerFull);
    return false;
  }
  count(LinkCounter::kRxDelivered);
  return true;
}

size_t NativeThread::transmit_batch(Worker& worker) {
  size_t taken = 0;
  size_t prepared = 0;
  RingSlot slot;
  while (taken < Link::kBatch && worker.transmit.take(slot)) {
    ++taken;
    const PacketDescriptor packet = PacketDescriptor::decode(slot);
    const OutputPacket output =
        finish_output(packet, options_.pool.frame(packet.frame), options_.addresses, link_->mtu());
    if (output.ready) {
      outgoing_[prepared].bytes = output.bytes;
      outgoing_refs_[prepared++] = packet.frame;
    } else {
      count(output.drop_reason);
      options_.pool.release(packet.frame);
    }
  }
  if (taken == 0) return 0;
  send_prepared(prepared);
  worker.transmit.release();
  return taken;
}

void NativeThread::send_prepared(size_t count_prepared) {
  if (count_prepared == 0) return;
  link_->send({outgoing_.data(), count_prepared});
  for (size_t i = 0; i < count_prepared; ++i) {
    count(outgoing_[i].result);
    if (outgoing_[i].result == LinkCounter::kTxPackets) {
      count(LinkCounter::kTxBytes, outgoing_[i].bytes.size());
    }
    options_.pool.release(outgoing_refs_[i]);
  }
}

}  // namespace apo
