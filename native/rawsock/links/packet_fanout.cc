#include "links/packet_fanout.h"

#include <signal.h>

#include <cerrno>

namespace apo {

PacketFanout::~PacketFanout() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    if (!running_) return;
  }
  changed_.notify_all();
  pthread_join(thread_, nullptr);
}

int PacketFanout::join(const std::vector<std::unique_ptr<PacketSockets>>& sockets) {
  std::vector<int> members;
  for (const auto& one : sockets) members.push_back(one->plain.get());
  for (const auto& one : sockets) members.push_back(one->ringed.get());
  fd_ = members.front();
  // The kernel finds a number for the group that nobody else has; the others join it by that.
  uint32_t group = PACKET_FANOUT_CBPF << 16 | PACKET_FANOUT_FLAG_UNIQUEID << 16;
  for (const int fd : members) {
    if (::setsockopt(fd, SOL_PACKET, PACKET_FANOUT, &group, sizeof(group)) != 0) return errno;
    if (fd != fd_) continue;
    socklen_t bytes = sizeof(group);
    if (::getsockopt(fd, SOL_PACKET, PACKET_FANOUT, &group, &bytes) != 0) return errno;
    group = (group & 0xffff) | PACKET_FANOUT_CBPF << 16;
  }
  return apply(0);
}

int PacketFanout::apply(uint32_t rings) {
  ClassicProgram code = fanout_program(queues_, rings, key_);
  const sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
  const int result = ::setsockopt(fd_, SOL_PACKET, PACKET_FANOUT_DATA, &program, sizeof(program));
  return result == 0 ? 0 : errno;
}

bool PacketFanout::request(uint32_t queue, bool ring) {
  const std::lock_guard lock(mutex_);
  if (has_failed()) return false;
  if (!running_) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    running_ = pthread_create(&thread_, nullptr, &PacketFanout::entry, this) == 0;
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (!running_) return false;
    pthread_setname_np(thread_, "apo-fanout");
  }
  wanted_ = ring ? wanted_ | 1u << queue : wanted_ & ~(1u << queue);
  changed_.notify_all();
  return true;
}

void* PacketFanout::entry(void* self) {
  static_cast<PacketFanout*>(self)->run();
  return nullptr;
}

void PacketFanout::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(
        lock, [this] { return ending_ || wanted_ != applied_.load(std::memory_order_relaxed); });
    if (ending_) return;
    const uint32_t rings = wanted_;
    lock.unlock();
    const int error = apply(rings);
    lock.lock();
    if (error != 0) {
      failed_.store(true, std::memory_order_release);
      return;
    }
    applied_.store(rings, std::memory_order_release);
  }
}

}  // namespace apo
