#include "capture/packet_capture.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "capture/packet_repairs.h"

namespace apo {
namespace {

// The writer goes to the disk when this much has come, or this long after the first packet: few system
// calls under load, and a file that can be watched while it grows.
constexpr size_t kWriteAtBytes = 256 * 1024;
constexpr auto kWriteAfter = std::chrono::milliseconds(100);
// How long a full pipe is waited for after `close`.
constexpr int kPipeWaitMs = 1000;

uint64_t clock_us(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000 + static_cast<uint64_t>(now.tv_nsec) / 1000;
}

std::string_view reason_text(LinkCounter reason) {
  const auto index = static_cast<size_t>(reason);
  return index < kLinkCounters ? std::string_view(kLinkCounterNames[index]) : std::string_view();
}

// The length of the whole blocks among the first `limit` bytes. The blocks are our own.
size_t whole_blocks(const uint8_t* bytes, size_t limit, uint64_t& packets) {
  size_t at = 0;
  for (packets = 0; limit - at >= pcapng::kBlockLengthOffset + 4; ++packets) {
    const uint8_t* field = bytes + at + pcapng::kBlockLengthOffset;
    const size_t length = field[0] | field[1] << 8 | field[2] << 16;
    if (length > limit - at) break;
    at += length;
  }
  return at;
}

}  // namespace

std::shared_ptr<PacketCapture> PacketCapture::open(const std::string& path,
                                                   const CaptureOptions& options, int& error) {
  error = EINVAL;
  if (options.buffer_bytes < CaptureOptions::kBufferBytesMin || options.snap_bytes == 0 ||
      options.snap_bytes > CaptureOptions::kSnapBytesDefault) {
    return nullptr;
  }
  // Without O_NONBLOCK the opening of a FIFO would wait for its reader, and a write for its reading.
  UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0600));
  if (!file) {
    error = errno;
    return nullptr;
  }
  std::shared_ptr<PacketCapture> capture(new PacketCapture(std::move(file), options));
  error = capture->start();
  return error == 0 ? capture : nullptr;
}

PacketCapture::PacketCapture(UniqueFd file, const CaptureOptions& options)
    : options_(options), file_(std::move(file)) {
  filling_.bytes.reset(new uint8_t[options.buffer_bytes]);
  writing_.bytes.reset(new uint8_t[options.buffer_bytes]);
  start_us_ = clock_us(CLOCK_REALTIME);
  wall_offset_us_ = start_us_ - clock_us(CLOCK_MONOTONIC);
}

int PacketCapture::start() {
  std::array<uint8_t, pcapng::kFileHeaderBytesMax> header;
  const size_t length = pcapng::write_file_header(header, options_.snap_bytes);
  size_t written = 0;
  if (!write_all(header.data(), length, written)) return error_.load();
  // Signals are the main thread's matter, and SIGPIPE is nobody's: write says EPIPE.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int error = pthread_create(&thread_, nullptr, &PacketCapture::entry, this);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  started_ = error == 0;
  if (started_) pthread_setname_np(thread_, "apo-capture");
  return error;
}

void PacketCapture::record(CaptureDirection direction, std::span<const uint8_t> bytes,
                           const Offload& offload, LinkCounter reason, uint64_t now_us) {
  pcapng::Packet packet;
  packet.time_us = now_us + wall_offset_us_;
  packet.captured = bytes.first(std::min<size_t>(bytes.size(), options_.snap_bytes));
  packet.original_bytes = static_cast<uint32_t>(bytes.size());
  packet.direction = direction;
  packet.comment = reason_text(reason);
  // The sums are made before the lock is taken.
  const PacketRepairs repairs = packet_repairs(bytes, offload);
  const size_t needed = pcapng::packet_block_bytes(packet);

  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    if (closing_ || error_.load(std::memory_order_relaxed) != 0 ||
        needed > options_.buffer_bytes - filling_.used) {
      missed_.fetch_add(1, std::memory_order_relaxed);
      return;
    }
    uint8_t* block = filling_.bytes.get() + filling_.used;
    pcapng::write_packet_block(block, packet);
    for (size_t i = 0; i < repairs.count; ++i) {
      const PacketRepair& repair = repairs.list[i];
      if (repair.offset + 2 > packet.captured.size()) continue;
      block[pcapng::kPacketBytesOffset + repair.offset] = static_cast<uint8_t>(repair.value >> 8);
      block[pcapng::kPacketBytesOffset + repair.offset + 1] = static_cast<uint8_t>(repair.value);
    }
    const bool was_below = filling_.used < kWriteAtBytes;
    filling_.used += needed;
    ++filling_.packets;
    wake =
        writer_waits_ && (filling_.packets == 1 || (was_below && filling_.used >= kWriteAtBytes));
  }
  if (wake) to_write_.notify_one();
}

CaptureStatus PacketCapture::status() const {
  CaptureStatus status;
  status.packets = packets_.load(std::memory_order_relaxed);
  status.bytes = bytes_.load(std::memory_order_relaxed);
  status.missed = missed_.load(std::memory_order_relaxed);
  status.error = error_.load(std::memory_order_relaxed);
  return status;
}

int PacketCapture::close() {
  const std::lock_guard closing(close_mutex_);
  if (started_) {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
    }
    to_write_.notify_one();
    pthread_join(thread_, nullptr);
    started_ = false;
  }
  return error_.load();
}

void* PacketCapture::entry(void* self) {
  static_cast<PacketCapture*>(self)->run();
  return nullptr;
}

void PacketCapture::run() {
  for (bool last = false; !last;) {
    {
      std::unique_lock lock(mutex_);
      writer_waits_ = true;
      to_write_.wait(lock, [this] { return closing_ || filling_.packets > 0; });
      to_write_.wait_for(lock, kWriteAfter,
                         [this] { return closing_ || filling_.used >= kWriteAtBytes; });
      writer_waits_ = false;
      last = closing_;
      std::swap(filling_, writing_);
    }
    write_half(writing_);
  }
  write_end();
}

void PacketCapture::write_half(Half& half) {
  size_t written = 0;
  uint64_t packets = half.packets;
  // After a failure nothing more is written: behind a gap the file would still be true, but not the
  // statistics at its end, which say "from here on nothing".
  if (error_.load(std::memory_order_relaxed) != 0 ||
      !write_all(half.bytes.get(), half.used, written)) {
    const size_t whole = whole_blocks(half.bytes.get(), written, packets);
    missed_.fetch_add(half.packets - packets, std::memory_order_relaxed);
    bytes_.fetch_sub(written - whole, std::memory_order_relaxed);
    const auto end = static_cast<off_t>(bytes_.load(std::memory_order_relaxed));
    if (written > whole &&
        (ftruncate(file_.get(), end) != 0 || lseek(file_.get(), end, SEEK_SET) < 0)) {
      file_.reset();  // a pipe: half a block is out, and nothing may follow it
    }
  }
  packets_.fetch_add(packets, std::memory_order_relaxed);
  half.used = 0;
  half.packets = 0;
}

bool PacketCapture::write_all(const uint8_t* bytes, size_t length, size_t& written) {
  for (written = 0; written < length;) {
    const ssize_t taken = ::write(file_.get(), bytes + written, length - written);
    if (taken > 0) {
      written += static_cast<size_t>(taken);
      bytes_.fetch_add(static_cast<uint64_t>(taken), std::memory_order_relaxed);
    } else if (taken == 0) {
      error_.store(EIO);
      return false;
    } else if (errno == EAGAIN && !wait_until_writable()) {
      error_.store(ETIMEDOUT);
      return false;
    } else if (errno != EINTR && errno != EAGAIN) {
      error_.store(errno);
      return false;
    }
  }
  return true;
}

// A pipe whose reader is slow: waited for while the capture lives, and a little longer.
bool PacketCapture::wait_until_writable() const {
  for (int waited_ms = 0;;) {
    pollfd pipe{file_.get(), POLLOUT, 0};
    constexpr int kStepMs = 100;
    if (poll(&pipe, 1, kStepMs) > 0) return true;
    const std::lock_guard lock(mutex_);
    if (closing_ && (waited_ms += kStepMs) >= kPipeWaitMs) return false;
  }
}

void PacketCapture::write_end() {
  if (!file_) return;
  pcapng::Statistics statistics;
  statistics.start_us = start_us_;
  statistics.end_us = clock_us(CLOCK_MONOTONIC) + wall_offset_us_;
  statistics.written = packets_.load();
  statistics.missed = missed_.load();
  statistics.seen = statistics.written + statistics.missed;
  std::string comment;
  if (error_.load() != 0) {
    comment = std::string("the capture ended early: ") + std::strerror(error_.load()) + "; " +
              std::to_string(statistics.missed) + " packets are missing";
  } else if (statistics.missed > 0) {
    comment = std::to_string(statistics.missed) + " packets are missing: the disk did not keep up";
  }
  statistics.comment = comment;
  std::array<uint8_t, pcapng::kStatisticsBytesMax> block;
  const size_t length = pcapng::write_statistics(block, statistics);
  size_t written = 0;
  const uint64_t before = bytes_.load();
  if (!write_all(block.data(), length, written) && written > 0) {
    (void)!ftruncate(file_.get(), static_cast<off_t>(before));
    bytes_.store(before);
  }
  if (::close(file_.release()) != 0 && error_.load() == 0) error_.store(errno);
}

}  // namespace apo
