// A link with the memory that a native thread would lend it, for tests of one queue.
#pragma once

#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "check.h"
#include "links/link_kinds.h"
#include "packet_builder.h"
#include "shared_memory.h"

namespace apo::test {

class LinkHarness {
 public:
  explicit LinkHarness(std::shared_ptr<Link> link, uint32_t small = 256, uint32_t large = 64)
      : link_(std::move(link)),
        memory_(pool_memory(1, small, large)),
        pool_(*FramePool::attach(memory_, 0)) {
    CHECK(link_ != nullptr);
    const LinkContext context = {pool_, LinkCounters(std::span<uint64_t, kLinkCounters>(cells_)),
                                 Doorbell(&bell_)};
    CHECK(link_->start(context) == 0);
  }

  // The link keeps pointers into it.
  LinkHarness(const LinkHarness&) = delete;
  LinkHarness& operator=(const LinkHarness&) = delete;

  [[nodiscard]] Link& link() { return *link_; }
  [[nodiscard]] uint64_t count(LinkCounter counter) const {
    return cells_[static_cast<size_t>(counter)];
  }
  [[nodiscard]] uint32_t frames_in_use() const { return pool_.frames_in_use(0); }

  struct Received {
    Bytes bytes;
    uint32_t offset = 0;
    Offload offload;
  };
  // What one call of `receive` gives; the frames go back.
  std::vector<Received> receive(size_t most = Link::kBatch) {
    std::vector<IncomingPacket> packets(most);
    const size_t count = link_->receive(packets);
    CHECK(count <= most);
    std::vector<Received> received;
    for (size_t i = 0; i < count; ++i) {
      const IncomingPacket& packet = packets[i];
      const std::span<uint8_t> frame = pool_.frame(packet.frame);
      CHECK(packet.offset + packet.length <= frame.size());
      const uint8_t* at = frame.data() + packet.offset;
      received.push_back({Bytes(at, at + packet.length), packet.offset, packet.offload});
      CHECK(pool_.release(packet.frame));
    }
    CHECK(frames_in_use() == 0);
    return received;
  }
  // Waits until the link's descriptors are ready, a second at most.
  bool wait() {
    std::vector<pollfd> polled(link_->poll_set().begin(), link_->poll_set().end());
    return ::poll(polled.data(), polled.size(), 1000) > 0;
  }
  // Until `count` packets have come.
  std::vector<Received> receive_all(size_t count) {
    std::vector<Received> all;
    while (all.size() < count && wait()) {
      for (Received& one : receive()) all.push_back(std::move(one));
    }
    CHECK(all.size() == count);
    return all;
  }
  LinkCounter send(const Bytes& bytes, Offload offload = {}) {
    OutgoingPacket packet;
    packet.bytes = bytes;
    packet.offload = offload;
    link_->send({&packet, 1});
    return packet.result;
  }

 private:
  std::shared_ptr<Link> link_;
  std::vector<uint32_t> memory_;
  FramePool pool_;
  std::array<uint64_t, kLinkCounters> cells_{};
  uint32_t bell_ = 0;
};

inline bool is_offload(const Offload& offload, ChecksumState state, GsoKind kind = GsoKind::kNone,
                       uint16_t gso_bytes = 0) {
  return offload.checksum_state == state && offload.gso_kind == kind &&
         offload.gso_bytes == gso_bytes;
}

}  // namespace apo::test
