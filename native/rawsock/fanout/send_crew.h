// Threads that help the engine's own through a long sweep: one frame to very many receivers.
//
// A sweep over a thousand receivers takes milliseconds, and the last receiver waits for all of it. The crew takes
// receivers by the handful from a shared index, so that a helper that the scheduler keeps waiting costs nothing: the
// engine's thread goes on by itself. Between sweeps the helpers sleep and touch nothing.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "fanout/gso_sender.h"

namespace apo {

struct SendTarget {
  SendSocket* socket;
  Receiver* receiver;
};

class SendCrew {
 public:
  explicit SendCrew(size_t helpers);
  ~SendCrew();
  SendCrew(const SendCrew&) = delete;
  SendCrew& operator=(const SendCrew&) = delete;

  // Sends the runs to every target and returns when all has been handed to the kernel. `own` is the caller's sender;
  // what the helpers counted is added to `counters` before it returns. Helpers join in only when it pays.
  void sweep(std::span<const SendTarget> targets, const std::vector<SendRun>& runs, size_t packets,
             GsoSender& own, SendCounters& counters);

 private:
  struct Helper {
    SendCounters counters;
    GsoSender sender{counters};
    std::thread thread;
  };

  void help(Helper& helper);
  void take(GsoSender& sender);

  std::vector<std::unique_ptr<Helper>> helpers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable idle_;
  bool open_ = false;      // a sweep may be joined
  bool stopping_ = false;  // all three guarded by mutex_
  size_t active_ = 0;      // helpers inside the sweep
  uint64_t sweep_ = 0;

  // The sweep: set before it is opened, read until it is closed and nobody is inside.
  std::span<const SendTarget> targets_;
  const std::vector<SendRun>* runs_ = nullptr;
  std::atomic<size_t> next_{0};
};

}  // namespace apo
