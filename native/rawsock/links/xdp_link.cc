#include "links/xdp_link.h"

#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "ethernet/ethernet.h"
#include "wire/partial_checksum.h"

namespace apo {
namespace {

constexpr uint32_t kRingEntriesMax = 2048;
constexpr uint32_t kRingEntriesMin = 64;
// Of a thread's small frames an eighth may be on their way out, and a quarter lie in fill rings.
constexpr uint32_t kTransmitShare = 8;
constexpr uint32_t kFillShare = 4;

// A device whose queue is full is asked again this soon.
constexpr uint64_t kRetryUs = 100;
// How long a thread that never sleeps may go without reading the kernel's news; with packets
// waiting for a neighbour, whose answer is among them, not long.
constexpr uint64_t kFollowUs = 20'000;
constexpr uint64_t kFollowParkedUs = 200;
constexpr uint64_t kCountUs = 500'000;
// For what is in the transmit ring at the end.
constexpr int kFlushTries = 100;
constexpr useconds_t kFlushPauseUs = 100;

constexpr size_t kHeaderBytes = EthernetView::kHeaderBytes;

uint64_t clock_us() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000 + static_cast<uint64_t>(now.tv_nsec) / 1000;
}

SteerKey random_key() {
  SteerKey key;
  if (getrandom(&key, sizeof key, 0) != sizeof key) key = {0x6a09e667, 0xbb67ae85};
  return key;
}

// Memory of sockets counts against RLIMIT_MEMLOCK for who has no CAP_IPC_LOCK: what may be had is
// taken.
void raise_memory_limit() {
  rlimit limit;
  if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  (void)setrlimit(RLIMIT_MEMLOCK, &limit);
}

// The destination's hardware address where it follows from the IP address.
bool is_group(uint8_t version, const uint8_t* destination, MacAddress& mac) {
  const IpAddress address = IpAddress::from_bytes(version, destination);
  if (is_multicast(address)) {
    mac = multicast_mac(address);
    return true;
  }
  constexpr uint8_t kBroadcast[4] = {255, 255, 255, 255};
  if (version != 4 || std::memcmp(destination, kBroadcast, 4) != 0) return false;
  mac = MacAddress::broadcast();
  return true;
}

}  // namespace

XdpLink::XdpLink(std::shared_ptr<XdpInterface> interface, const XdpLinkOptions& options)
    : interface_(std::move(interface)),
      options_(options),
      mtu_(options.mtu == 0 ? interface_->facts().mtu
                            : std::min<size_t>(options.mtu, interface_->facts().mtu)),
      mac_{interface_->facts().mac},
      neighbours_(*this, random_key()) {}

int XdpLink::start(const LinkContext& context) {
  if (closing_.load(std::memory_order_relaxed)) return ENODEV;
  context_ = context;
  const FramePool::SmallFrames frames = context_->pool.own_small_frames();
  memory_ = frames.bytes;
  first_ref_ = frames.first_ref;
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  if (reinterpret_cast<uintptr_t>(memory_.data()) % page != 0) return EFAULT;
  held_.assign(memory_.size() / XdpSocket::kFrameBytes, 0);
  if (const int error = neighbours_.open(interface_->facts().index, interface_->addresses());
      error != 0) {
    return error;
  }
  raise_memory_limit();
  if (const int error = open_sockets(); error != 0) {
    shut_down();
    return error;
  }
  polled_.push_back({neighbours_.fd(), POLLIN, 0});
  for (const auto& queue : queues_) polled_.push_back({queue->socket.fd(), POLLIN, 0});
  return 0;
}

int XdpLink::open_sockets() {
  const uint32_t rx_queues = interface_->rx_queues();
  const uint32_t sockets = (rx_queues - options_.thread + options_.threads - 1) / options_.threads;
  const auto frames = static_cast<uint32_t>(held_.size());
  const uint32_t sendable = std::min(std::bit_floor(frames / kTransmitShare), kRingEntriesMax);
  const uint32_t fill = std::min(std::bit_floor(frames / kFillShare / sockets), kRingEntriesMax);
  if (sendable < kRingEntriesMin || fill < kRingEntriesMin) return ENOMEM;

  spare_.reserve(fill + 2 * kBatch);
  sendable_.reserve(sendable);
  while (sendable_.size() < sendable && take_spare()) {
    sendable_.push_back(spare_.back());
    spare_.pop_back();
  }
  if (sendable_.size() < sendable) return ENOMEM;
  for (uint32_t index = options_.thread; index < rx_queues; index += options_.threads) {
    queues_.push_back(std::make_unique<Queue>());
    queues_.back()->index = index;
    if (const int error = open_socket(*queues_.back(), fill); error != 0) return error;
  }
  zero_copy_ = queues_.front()->socket.is_zero_copy();
  for (const auto& queue : queues_) {
    const int error = interface_->add_socket(queue->index, queue->socket.fd());
    if (error != 0) return error;
  }
  return 0;
}

int XdpLink::open_socket(Queue& queue, uint32_t fill_entries) {
  // The first one has the memory, and sends.
  const bool first = queue.index == options_.thread;
  XdpSocket& socket = queue.socket;
  if (const int error = socket.open(); error != 0) return error;
  if (first) {
    if (const int error = socket.register_memory(memory_); error != 0) return error;
  }
  XdpRingSizes sizes;
  sizes.fill = fill_entries;
  sizes.receive = fill_entries;
  sizes.transmit = first ? static_cast<uint32_t>(sendable_.size()) : 0;
  sizes.completion = first ? sizes.transmit : kRingEntriesMin;
  if (const int error = socket.make_rings(sizes); error != 0) return error;
  queue.missing = fill_entries;
  missing_ += fill_entries;
  while (spare_.size() < missing_ && take_spare()) {
  }
  fill_up(queue);
  return socket.bind(static_cast<uint32_t>(interface_->facts().index), queue.index, options_.copy,
                     first ? nullptr : &queues_.front()->socket);
}

bool XdpLink::take_spare() {
  const uint32_t ref = context_->pool.allocate(false);
  if (ref == 0) return false;
  held_[ref - first_ref_] = 1;
  spare_.push_back(ref - first_ref_);
  return true;
}

uint8_t* XdpLink::bytes_of(FrameIndex frame) const {
  return memory_.data() + static_cast<size_t>(frame) * XdpSocket::kFrameBytes;
}

void XdpLink::fill_up(Queue& queue) {
  auto& fill = queue.socket.fill;
  bool filled = false;
  while (queue.missing > 0 && !spare_.empty() && fill.room() > 0) {
    fill.push(uint64_t{spare_.back()} * XdpSocket::kFrameBytes);
    spare_.pop_back();
    --queue.missing;
    --missing_;
    filled = true;
  }
  if (filled) fill.publish();
}

size_t XdpLink::receive(std::span<IncomingPacket> packets) {
  if (shut_down_) return 0;
  size_t received = 0;
  // Another queue first each time, so that a busy one does not starve the rest.
  for (size_t i = 0; i < queues_.size() && received < packets.size(); ++i) {
    next_queue_ = (next_queue_ + 1) % queues_.size();
    received += receive_from(*queues_[next_queue_], packets.subspan(received));
  }
  if (received == 0 && closing_.load(std::memory_order_acquire)) shut_down();
  return received;
}

size_t XdpLink::receive_from(Queue& queue, std::span<IncomingPacket> packets) {
  auto& ring = queue.socket.receive;
  const size_t there = ring.available();
  if (there == 0) return 0;
  // A frame that is handed on is replaced first: a short pool drops packets, counted, and never
  // leaves the kernel without frames.
  const size_t most = std::min(there, packets.size());
  while (spare_.size() < missing_ + most && take_spare()) {
  }
  size_t received = 0;
  uint64_t partial = 0;
  for (size_t i = 0; i < most; ++i) {
    const xdp_desc descriptor = ring.take();
    const auto frame = static_cast<FrameIndex>(descriptor.addr / XdpSocket::kFrameBytes);
    const auto offset = static_cast<uint32_t>(descriptor.addr % XdpSocket::kFrameBytes);
    if (frame >= held_.size() || held_[frame] == 0) continue;  // never ours to give
    ++queue.missing;
    ++missing_;
    const bool fits = descriptor.len > kHeaderBytes &&
                      offset + uint64_t{descriptor.len} <= XdpSocket::kFrameBytes;
    if (!fits || spare_.size() < missing_) {
      spare_.push_back(frame);
      count(LinkCounter::kRxPackets);
      count(fits ? LinkCounter::kRxDroppedPoolEmpty : LinkCounter::kRxDroppedFrame);
      continue;
    }
    held_[frame] = 0;
    IncomingPacket& packet = packets[received++];
    packet.frame = first_ref_ + frame;
    packet.offset = offset + static_cast<uint32_t>(kHeaderBytes);
    packet.length = descriptor.len - static_cast<uint32_t>(kHeaderBytes);
    packet.offload = {};
    if (wire::has_partial_checksum({bytes_of(frame) + packet.offset, packet.length})) {
      packet.offload.checksum_state = ChecksumState::kPartial;
      ++partial;
    }
  }
  ring.release();
  fill_up(queue);
  queue.socket.wake_receive();
  if (partial > 0) count(LinkCounter::kRxPartialChecksums, partial);
  if (count_us_ == kNever) count_us_ = clock_us() + kCountUs;
  return received;
}

void XdpLink::send(std::span<OutgoingPacket> packets) {
  const uint64_t now_us = clock_us();
  for (OutgoingPacket& packet : packets) packet.result = send_one(packet.bytes, now_us);
  kick(now_us);
  const XdpNeighbours::Tally tally = neighbours_.take_tally();
  if (tally.asked > 0) count(LinkCounter::kNeighbourAsks, tally.asked);
}

LinkCounter XdpLink::send_one(std::span<const uint8_t> packet, uint64_t now_us) {
  if (shut_down_) return LinkCounter::kTxDroppedLinkDown;
  if (packet.size() > mtu_) return LinkCounter::kTxDroppedTooBig;
  const uint8_t version = packet.empty() ? 0 : packet[0] >> 4;
  const size_t at = version == 4 ? wire::ipv4_field::kDestination : wire::ipv6_field::kDestination;
  if ((version != 4 && version != 6) || packet.size() < at + (version == 4 ? 4 : 16)) {
    return LinkCounter::kTxDroppedNoRoute;
  }
  XdpParkedFrame written;
  MacAddress group;
  if (is_group(version, &packet[at], group)) {
    const LinkCounter result = write_frame(packet, group, written);
    if (result == LinkCounter::kTxPackets) transmit(written);
    return result;
  }
  const XdpNeighbours::NextHop hop = neighbours_.find(version, &packet[at], now_us);
  if (hop.answer == XdpNeighbours::Answer::kNoRoute) return LinkCounter::kTxDroppedNoRoute;
  if (hop.answer == XdpNeighbours::Answer::kFull) return LinkCounter::kTxDroppedUnresolved;
  const LinkCounter result = write_frame(packet, hop.mac, written);
  if (result != LinkCounter::kTxPackets) return result;
  if (hop.answer == XdpNeighbours::Answer::kKnown) {
    transmit(written);
    return result;
  }
  // Waiting packets take a quarter of the frames at most, so that others go on.
  const bool room = neighbours_.parked() * 4 < queues_.front()->socket.completion.entries();
  if (!room || !neighbours_.park(hop.neighbour, written, now_us)) {
    sendable_.push_back(written.frame);
    return LinkCounter::kTxDroppedUnresolved;
  }
  follow_us_ = now_us + kFollowParkedUs;
  return LinkCounter::kTxParked;
}

LinkCounter XdpLink::write_frame(std::span<const uint8_t> packet, const MacAddress& to,
                                 XdpParkedFrame& written) {
  if (!has_transmit_frame()) return LinkCounter::kTxDroppedLinkFull;
  const FrameIndex frame = sendable_.back();
  sendable_.pop_back();
  uint8_t* at = bytes_of(frame);
  const uint16_t type = packet[0] >> 4 == 4 ? ethertype::kIpv4 : ethertype::kIpv6;
  write_ethernet_header(at, to, mac_, type);
  std::memcpy(at + kHeaderBytes, packet.data(), packet.size());
  written = {frame, static_cast<uint32_t>(kHeaderBytes + packet.size())};
  return LinkCounter::kTxPackets;
}

// There are as many frames for sending as the ring has entries: a frame means a place in it.
void XdpLink::transmit(const XdpParkedFrame& frame) {
  const uint64_t address = uint64_t{frame.frame} * XdpSocket::kFrameBytes;
  queues_.front()->socket.transmit.push({address, frame.length, 0});
}

bool XdpLink::has_transmit_frame() {
  if (!sendable_.empty()) return true;
  take_completions();
  if (!sendable_.empty()) return true;
  XdpSocket& socket = queues_.front()->socket;
  socket.transmit.publish();
  (void)socket.wake_transmit();
  take_completions();
  return !sendable_.empty();
}

void XdpLink::take_completions() {
  auto& completion = queues_.front()->socket.completion;
  uint32_t done = completion.available();
  if (done == 0) return;
  for (; done > 0; --done) {
    const auto frame = static_cast<FrameIndex>(completion.take() / XdpSocket::kFrameBytes);
    if (frame < held_.size() && held_[frame] != 0) sendable_.push_back(frame);
  }
  completion.release();
}

void XdpLink::kick(uint64_t now_us) {
  if (shut_down_) return;
  XdpSocket& socket = queues_.front()->socket;
  socket.transmit.publish();
  // What the device does not take now it is offered again soon; the thread does not wait for it.
  retry_us_ = socket.wake_transmit() ? kNever : now_us + kRetryUs;
  take_completions();
  if (follow_us_ == kNever) follow_us_ = now_us + kFollowUs;
}

void XdpLink::resolved(const XdpParkedFrame& parked, const MacAddress& mac) {
  std::memcpy(bytes_of(parked.frame), mac.bytes.data(), MacAddress::kBytes);
  transmit(parked);
  count(LinkCounter::kNeighbourReleased);
}

void XdpLink::unreachable(const XdpParkedFrame& parked) {
  sendable_.push_back(parked.frame);
  count(LinkCounter::kNeighbourDroppedUnreachable);
}

uint64_t XdpLink::deadline_us() const {
  if (shut_down_) return kNever;
  return std::min({retry_us_, follow_us_, count_us_, neighbours_.deadline_us()});
}

void XdpLink::tick(uint64_t now_us) {
  if (shut_down_) return;
  if (now_us >= follow_us_) {
    follow_us_ = neighbours_.parked() > 0 ? now_us + kFollowParkedUs : kNever;
    neighbours_.follow(now_us);
  } else {
    neighbours_.tick(now_us);
  }
  const XdpNeighbours::Tally tally = neighbours_.take_tally();
  if (tally.asked > 0) count(LinkCounter::kNeighbourAsks, tally.asked);
  if (tally.resolved > 0) count(LinkCounter::kNeighbourResolved, tally.resolved);
  if (tally.failed > 0) count(LinkCounter::kNeighbourFailed, tally.failed);
  if (now_us >= count_us_) {
    count_us_ = kNever;
    count_statistics();
  }
  XdpSocket& socket = queues_.front()->socket;
  socket.transmit.publish();  // what `resolved` has put there
  retry_us_ = socket.wake_transmit() ? kNever : now_us + kRetryUs;
  take_completions();
}

bool XdpLink::prepare_sleep() {
  if (shut_down_) return true;
  if (closing_.load(std::memory_order_acquire)) return false;  // `receive` shuts down
  follow_us_ = kNever;  // while it sleeps its descriptor tells of news
  for (const auto& queue : queues_) {
    if (queue->socket.receive.available() > 0) return false;
  }
  return true;
}

void XdpLink::finish_sleep() {
  if (shut_down_) return;
  const uint64_t now_us = clock_us();
  follow_us_ = now_us;
  tick(now_us);
}

int XdpLink::open_port(uint8_t protocol, uint16_t port) {
  return interface_->ports().open(protocol, port);
}

void XdpLink::close_port(uint8_t protocol, uint16_t port) {
  interface_->ports().close(protocol, port);
}

int XdpLink::join_group(const IpAddress& group, const IpAddress* source) {
  return interface_->groups().join(group, source);
}

void XdpLink::leave_group(const IpAddress& group, const IpAddress* source) {
  interface_->groups().leave(group, source);
}

void XdpLink::close() {
  if (closing_.exchange(true, std::memory_order_acq_rel)) return;
  for (uint32_t i = options_.thread; i < interface_->rx_queues(); i += options_.threads) {
    interface_->remove_socket(i);
  }
  interface_->detach();
}

// In the thread, after `close`, when all that came in has been taken: everything goes back. (Also
// when `start` has failed half way.)
void XdpLink::shut_down() {
  if (shut_down_) return;
  neighbours_.give_up();
  if (!queues_.empty()) {
    flush();
    count_statistics();
  }
  shut_down_ = true;
  // The sockets first: after that the kernel writes into no frame.
  for (auto& queue : queues_) queue->socket.close();
  for (FrameIndex frame = 0; frame < held_.size(); ++frame) {
    if (held_[frame] != 0) context_->pool.release(first_ref_ + frame);
  }
  std::fill(held_.begin(), held_.end(), uint8_t{0});
}

// What is in the transmit ring still goes out.
void XdpLink::flush() {
  XdpSocket& socket = queues_.front()->socket;
  if (!socket.transmit.is_mapped()) return;
  socket.transmit.publish();
  for (int tries = 0; tries < kFlushTries; ++tries) {
    (void)socket.wake_transmit();
    if (socket.transmit.waiting() == 0) return;
    usleep(kFlushPauseUs);
  }
}

// What the kernel dropped before we could see it.
void XdpLink::count_statistics() {
  for (const auto& queue : queues_) {
    const xdp_statistics counted = queue->socket.statistics();
    // With a copy, a packet that finds no frame counts in `rx_dropped` as well; without, the card
    // keeps it waiting and the number is of looks, not of packets.
    const uint64_t no_frame = zero_copy_ ? 0 : counted.rx_fill_ring_empty_descs;
    const uint64_t dropped = counted.rx_ring_full + no_frame;
    const uint64_t too_big = counted.rx_dropped > no_frame ? counted.rx_dropped - no_frame : 0;
    const uint64_t more_dropped = dropped > queue->dropped ? dropped - queue->dropped : 0;
    const uint64_t more_too_big = too_big > queue->too_big ? too_big - queue->too_big : 0;
    queue->dropped += more_dropped;
    queue->too_big += more_too_big;
    if (more_dropped + more_too_big == 0) continue;
    count(LinkCounter::kRxPackets, more_dropped + more_too_big);
    count(LinkCounter::kRxDroppedRingFull, more_dropped);
    count(LinkCounter::kRxDroppedTooBig, more_too_big);
  }
}

OpenedLink open_xdp_link(const LinkSettings& settings) {
  const std::string mode = settings.text("xdpMode").value_or("auto");
  const std::string copy = settings.text("zeroCopy").value_or("auto");
  auto interface = std::make_shared<XdpInterface>();
  const XdpInterface::Failure failure = interface->open(settings.text("interface").value_or(""),
                                                        mode == "native"    ? XdpMode::kNative
                                                        : mode == "generic" ? XdpMode::kGeneric
                                                                            : XdpMode::kAuto);
  if (failure.error != 0) return OpenedLink::failed(failure.error, failure.step);
  XdpLinkOptions options;
  if (copy != "auto") options.copy = copy == "yes" ? XdpCopy::kZeroCopy : XdpCopy::kCopy;
  options.mtu = static_cast<size_t>(settings.integer("mtu", 1280, 65'535, 0));
  const auto wanted = static_cast<uint32_t>(settings.integer("queues", 1, 16, 1));
  options.threads = std::min(wanted, interface->rx_queues());
  OpenedLink opened;
  for (options.thread = 0; options.thread < options.threads; ++options.thread) {
    opened.queues.push_back(std::make_shared<XdpLink>(interface, options));
  }
  opened.addresses = interface->addresses();
  opened.device = interface->facts().name;
  return opened;
}

}  // namespace apo
