// A doorbell: one 32-bit word that a thread sleeps on and that any thread, native or JavaScript,
// rings. An event count over a futex: the sleeper reads the word, says at each of its inputs that
// it will sleep, looks at them once more and waits only while the word still has the value it read;
// ringing adds one and wakes.
//
// A thread that must also wait for file descriptors has an eventfd beside the word: ringing writes to
// it, and the sleeper polls it together with its others.
//
// The word usually lies in a SharedArrayBuffer. Whoever keeps a Doorbell keeps that memory alive, and
// its eventfd open.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdint>

namespace apo {

enum class FutexResult : int { kWoken = 0, kChanged = 1, kTimedOut = 2 };

// Waits while *word == expected. A negative timeout waits for ever. Signals end the wait as if
// woken.
inline FutexResult futex_wait(uint32_t* word, uint32_t expected, int64_t timeout_us) {
  timespec timeout{};
  if (timeout_us >= 0) {
    timeout.tv_sec = static_cast<time_t>(timeout_us / 1'000'000);
    timeout.tv_nsec = static_cast<long>(timeout_us % 1'000'000 * 1000);
  }
  const long result = syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected,
                              timeout_us >= 0 ? &timeout : nullptr, nullptr, 0);
  if (result == 0 || errno == EINTR) return FutexResult::kWoken;
  return errno == ETIMEDOUT ? FutexResult::kTimedOut : FutexResult::kChanged;
}

// The same, but while such sleeps are short it looks at the word for a while first (SpinPolicy).
FutexResult futex_wait_patiently(uint32_t* word, uint32_t expected, int64_t timeout_us);

// Returns how many were woken.
inline int futex_wake(uint32_t* word, int count) {
  const long woken = syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
  return woken < 0 ? 0 : static_cast<int>(woken);
}

// Wakes whoever polls the eventfd.
inline void ring_event(int event_fd) {
  const uint64_t one = 1;
  // It fails only when the count is at its most, and then the sleeper wakes anyway.
  [[maybe_unused]] const ssize_t written = write(event_fd, &one, sizeof one);
}

class Doorbell {
 public:
  Doorbell() = default;
  explicit Doorbell(uint32_t* word, int event_fd = -1) : word_(word), event_fd_(event_fd) {}

  [[nodiscard]] uint32_t read() const { return cell().load(std::memory_order_seq_cst); }
  void ring() const {
    cell().fetch_add(1, std::memory_order_seq_cst);
    if (event_fd_ >= 0) {
      ring_event(event_fd_);
    } else {
      futex_wake(word_, INT_MAX);
    }
  }
  // Takes back what `ring` wrote.
  void drain_event() const {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t read_bytes = ::read(event_fd_, &count, sizeof count);
  }
  // The same bell for a sleeper that waits for nothing else: a futex is cheaper.
  [[nodiscard]] Doorbell without_event() const { return Doorbell(word_); }
  [[nodiscard]] int event_fd() const { return event_fd_; }
  // Sleeps unless the bell has rung since `read` returned `seen`.
  FutexResult wait(uint32_t seen, int64_t timeout_us) const {
    return futex_wait_patiently(word_, seen, timeout_us);
  }

 private:
  [[nodiscard]] std::atomic_ref<uint32_t> cell() const { return std::atomic_ref<uint32_t>(*word_); }

  uint32_t* word_ = nullptr;
  int event_fd_ = -1;
};

}  // namespace apo
