// See send_crew.h.
#include "fanout/send_crew.h"

#include <pthread.h>

#include <algorithm>
#include <csignal>

namespace apo {
namespace {

// Below so many sends of a packet (about a millisecond) waking a helper is not worth it.
constexpr size_t kWorthwhilePackets = 4'096;
constexpr size_t kHandful = 16;

}  // namespace

SendCrew::SendCrew(size_t helpers) {
  for (size_t i = 0; i < helpers; i++) {
    helpers_.push_back(std::make_unique<Helper>());
    Helper& helper = *helpers_.back();
    helper.thread = std::thread([this, &helper] { help(helper); });
  }
}

SendCrew::~SendCrew() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (const auto& helper : helpers_) helper->thread.join();
}

void SendCrew::sweep(std::span<const SendTarget> targets, const std::vector<SendRun>& runs,
                     size_t packets, GsoSender& own, SendCounters& counters) {
  targets_ = targets;
  runs_ = &runs;
  next_.store(0, std::memory_order_relaxed);
  const bool together = !helpers_.empty() && targets.size() * packets >= kWorthwhilePackets;
  if (together) {
    {
      const std::lock_guard lock(mutex_);
      open_ = true;
      sweep_++;
    }
    wake_.notify_all();
  }
  take(own);
  if (!together) return;
  std::unique_lock lock(mutex_);
  open_ = false;
  idle_.wait(lock, [this] { return active_ == 0; });
  for (const auto& helper : helpers_) counters.fold(helper->counters);
}

void SendCrew::take(GsoSender& sender) {
  for (;;) {
    const size_t first = next_.fetch_add(kHandful, std::memory_order_relaxed);
    if (first >= targets_.size()) return;
    const size_t end = std::min(first + kHandful, targets_.size());
    for (size_t i = first; i < end; i++)
      sender.add(*targets_[i].socket, *targets_[i].receiver, *runs_);
    sender.flush();
  }
}

void SendCrew::help(Helper& helper) {
  ::pthread_setname_np(::pthread_self(), "apo-native-send");
  sigset_t all;
  sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
  uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return stopping_ || (open_ && sweep_ != seen); });
    if (stopping_) return;
    seen = sweep_;
    active_++;
    lock.unlock();
    take(helper.sender);
    lock.lock();
    active_--;
    if (active_ == 0) idle_.notify_one();
  }
}

}  // namespace apo
