// A capture file (pcapng) that the native threads of a runtime write into together, while a thread of
// its own carries it to the disk. A native thread never waits for the disk: what does not fit into the
// buffer is missing from the capture, and counted.
//
// It knows neither links nor JavaScript. What the file cannot take any more (a full disk) ends the
// capture, not the traffic: the file is cut behind its last whole block and stays readable.
#pragma once

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "capture/pcapng.h"
#include "thread/link_counters.h"
#include "util/unique_fd.h"
#include "wire/packet_descriptor.h"

namespace apo {

using CaptureDirection = pcapng::Direction;

struct CaptureOptions {
  static constexpr uint32_t kSnapBytesDefault = 65'535;
  static constexpr size_t kBufferBytesDefault = 4 * 1024 * 1024;
  // A packet of the largest kind must fit.
  static constexpr size_t kBufferBytesMin = 128 * 1024;

  uint32_t snap_bytes = kSnapBytesDefault;  // of each packet at most this much is kept
  // Twice this much memory is used: one half is filled while the other is written.
  size_t buffer_bytes = kBufferBytesDefault;
};

struct CaptureStatus {
  uint64_t packets = 0;  // in the file
  uint64_t bytes = 0;    // of the file
  uint64_t missed = 0;   // that are not in it: no room in the buffer, or the file failed
  int error = 0;         // errno that ended the capture, or 0
};

class PacketCapture {
 public:
  static constexpr LinkCounter kNoReason = LinkCounter::kCount;

  // Makes the file anew (readable by its owner alone: it holds what others said). Null, and an errno in
  // `error`, when it cannot be opened. A FIFO needs its reader first (ENXIO).
  [[nodiscard]] static std::shared_ptr<PacketCapture> open(const std::string& path,
                                                           const CaptureOptions& options,
                                                           int& error);
  ~PacketCapture() { (void)close(); }
  PacketCapture(const PacketCapture&) = delete;
  PacketCapture& operator=(const PacketCapture&) = delete;

  // From any thread, without a system call but the waking of an idle writer. `bytes` is a whole IP
  // packet and is not changed; `reason` names the counter under which it was dropped, or is kNoReason;
  // `now_us` is CLOCK_MONOTONIC. After `close` it does nothing but count.
  void record(CaptureDirection direction, std::span<const uint8_t> bytes, const Offload& offload,
              LinkCounter reason, uint64_t now_us);

  // From any thread.
  [[nodiscard]] CaptureStatus status() const;

  // Writes what is left and the statistics, and closes the file. 0, or the errno that ended the capture.
  // Idempotent. A reader of a FIFO that does not read is waited for a second.
  int close();

 private:
  struct Half {
    std::unique_ptr<uint8_t[]> bytes;
    size_t used = 0;
    uint64_t packets = 0;
  };

  PacketCapture(UniqueFd file, const CaptureOptions& options);
  [[nodiscard]] int start();
  static void* entry(void* self);
  void run();
  void write_half(Half& half);
  // True when all was written; else how much in `written`.
  bool write_all(const uint8_t* bytes, size_t length, size_t& written);
  [[nodiscard]] bool wait_until_writable() const;
  void fail(int error);
  void write_end();

  const CaptureOptions options_;
  UniqueFd file_;
  uint64_t wall_offset_us_ = 0;  // wall-clock time = monotonic time + this, fixed at start
  uint64_t start_us_ = 0;

  mutable std::mutex mutex_;  // held for copying one packet, never across a system call on the file
  std::condition_variable to_write_;
  Half filling_;
  bool writer_waits_ = false;
  bool closing_ = false;

  Half writing_;  // the writer's alone, but for the swap
  std::atomic<uint64_t> packets_{0};
  std::atomic<uint64_t> bytes_{0};
  std::atomic<uint64_t> missed_{0};
  std::atomic<int> error_{0};

  std::mutex close_mutex_;
  pthread_t thread_{};
  bool started_ = false;
};

}  // namespace apo
