// IP packets over a file descriptor: a TUN device (which tun_link.cc makes, or which the user hands
// in) or a socket that keeps message boundaries; with a virtio_net_hdr before each packet or
// without.
//
// A packet is read straight into its frame: the descriptor fills a small frame first and goes on in
// a large one behind the place where the small one's bytes belong, so a small packet is never
// copied, and of a large one the first 1,984 bytes are.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "links/link.h"
#include "links/link_kinds.h"
#include "util/unique_fd.h"
#include "wire/virtio_net_header.h"

namespace apo {

enum class FdKind : uint8_t { kTun, kUnixSocket, kOtherSocket };

struct FdLinkOptions {
  UniqueFd fd;  // nonblocking
  FdKind kind = FdKind::kTun;
  size_t mtu = 1500;
  size_t header_bytes = 0;  // of the virtio_net_hdr: 0 (none), 10, 12
  LinkFeatures features;
  std::function<void()> on_close;  // what else goes with it
};

class FdLink : public Link {
 public:
  // How many messages of a socket are read by one system call.
  static constexpr size_t kMessages = 32;

  // nullptr: no descriptor is left for it.
  static std::shared_ptr<FdLink> create(FdLinkOptions options);

  [[nodiscard]] int start(const LinkContext& context) override;
  [[nodiscard]] size_t mtu() const override { return options_.mtu; }
  [[nodiscard]] LinkFeatures features() const override { return options_.features; }
  [[nodiscard]] size_t receive(std::span<IncomingPacket> packets) override;
  void send(std::span<OutgoingPacket> packets) override;
  [[nodiscard]] std::span<const pollfd> poll_set() override { return {&polled_, 1}; }
  void close() override;

 private:
  // Where one packet is read to. The frames are taken before it is known whether one comes, and
  // given back when none did.
  struct Slot {
    uint32_t small = 0;
    uint32_t large = 0;
    std::array<uint8_t, wire::kVirtioNetHeaderBytesMax> header;
    std::array<iovec, 3> pieces;
  };
  using Header = std::array<uint8_t, wire::kVirtioNetHeaderBytesMax>;

  FdLink(FdLinkOptions options, UniqueFd quiet);

  void arm(Slot& slot);
  void disarm(Slot& slot);
  // What was read, header and all; false: dropped and counted.
  [[nodiscard]] bool take(Slot& slot, size_t bytes, bool truncated, IncomingPacket& packet);
  [[nodiscard]] bool drop(LinkCounter reason, size_t bytes);
  [[nodiscard]] size_t receive_tun(std::span<IncomingPacket> packets);
  [[nodiscard]] size_t receive_messages(std::span<IncomingPacket> packets);
  void receive_failed(int error);
  [[nodiscard]] bool hung_up() const;

  // Prepares a packet's pieces; false: refused.
  [[nodiscard]] bool prepare(OutgoingPacket& packet, size_t place);
  void send_tun(std::span<OutgoingPacket> packets);
  void send_messages(std::span<OutgoingPacket> packets);
  // After EAGAIN: true when there is room again. Waits for a bounded time a call of `send`, and not
  // at all while the other side reads nothing.
  [[nodiscard]] bool wait_for_room();
  // Why a packet was not taken, when that is about the packet; else what becomes of all.
  [[nodiscard]] LinkCounter refusal(int error);

  // Nothing more comes from the descriptor: it is replaced by one that never becomes ready, so that
  // nobody polls in vain, and the number cannot become another file's.
  void shut();
  void ended();
  [[nodiscard]] bool is_shut() const { return shut_.load(std::memory_order_acquire); }

  FdLinkOptions options_;
  UniqueFd quiet_;
  std::atomic<bool> shut_ = false;
  pollfd polled_{};
  std::optional<LinkContext> context_;
  int failures_ = 0;              // of reading, in a row
  size_t expected_ = 0;           // messages that the next batch is likely to have
  int64_t room_deadline_ns_ = 0;  // of this call of `send`; 0: it has not waited yet
  bool unresponsive_ = false;     // waiting did not help, and nothing has been taken since
  // Where packets go that no frame was left for.
  std::unique_ptr<uint8_t[]> scratch_;
  std::vector<Slot> slots_;
  std::vector<mmsghdr> received_;
  std::vector<mmsghdr> sent_;
  std::vector<std::array<iovec, 2>> sent_pieces_;
  std::vector<Header> sent_headers_;
  std::vector<OutgoingPacket*> sent_packets_;
};

// Kind "fd". Settings: `fd`, `vnetHeaderBytes` (0, 10, 12), `mtu`. The descriptor stays the
// caller's.
[[nodiscard]] OpenedLink open_fd_link(const LinkSettings& settings);

}  // namespace apo
