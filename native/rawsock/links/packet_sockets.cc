#include "links/packet_sockets.h"

#include <arpa/inet.h>
#include <linux/ethtool.h>
#include <linux/if_ether.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

namespace apo {
namespace {

constexpr int kReceiveBufferBytes = 8 * 1024 * 1024;
constexpr int kSendBufferBytes = 8 * 1024 * 1024;

int set_option(int fd, int level, int name, const void* value, size_t bytes) {
  return ::setsockopt(fd, level, name, value, static_cast<socklen_t>(bytes)) == 0 ? 0 : errno;
}
int set_flag(int fd, int name) {
  const int on = 1;
  return set_option(fd, SOL_PACKET, name, &on, sizeof(on));
}

// Beyond the system's limit where that is allowed.
void set_buffer(int fd, int name, int forced_name, int bytes) {
  if (set_option(fd, SOL_SOCKET, forced_name, &bytes, sizeof(bytes)) != 0) {
    (void)set_option(fd, SOL_SOCKET, name, &bytes, sizeof(bytes));
  }
}

UniqueFd packet_socket() {
  return UniqueFd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

// Protocol 0: to send only.
int bind_to(int fd, int index, uint16_t protocol) {
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(protocol);
  address.sll_ifindex = index;
  return ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ? 0 : errno;
}

struct InterfaceRequest {
  ifreq request{};
  explicit InterfaceRequest(const std::string& name) {
    std::strncpy(request.ifr_name, name.c_str(), IFNAMSIZ - 1);
  }
  [[nodiscard]] int ask(int fd, unsigned long what) {
    return ::ioctl(fd, what, &request) == 0 ? 0 : errno;
  }
  [[nodiscard]] int ask_ethtool(int fd, void* command) {
    request.ifr_data = static_cast<char*>(command);
    return ask(fd, SIOCETHTOOL);
  }
};

// The active features of a device by their kernel names; those that cannot be asked for are off.
InterfaceOffloads find_offloads(int fd, const std::string& name) {
  InterfaceRequest device(name);
  alignas(ethtool_sset_info) std::array<uint8_t, sizeof(ethtool_sset_info) + 4> sets{};
  auto* set = reinterpret_cast<ethtool_sset_info*>(sets.data());
  set->cmd = ETHTOOL_GSSET_INFO;
  set->sset_mask = 1ull << ETH_SS_FEATURES;
  if (device.ask_ethtool(fd, set) != 0 || set->sset_mask == 0) return {};

  const size_t count = set->data[0];
  if (count > 1024) return {};
  std::vector<uint32_t> names((sizeof(ethtool_gstrings) + count * ETH_GSTRING_LEN + 3) / 4);
  auto* strings = reinterpret_cast<ethtool_gstrings*>(names.data());
  strings->cmd = ETHTOOL_GSTRINGS;
  strings->string_set = ETH_SS_FEATURES;
  strings->len = static_cast<uint32_t>(count);
  if (device.ask_ethtool(fd, strings) != 0) return {};

  const size_t blocks = (count + 31) / 32;
  std::vector<uint32_t> values(
      (sizeof(ethtool_gfeatures) + blocks * sizeof(ethtool_get_features_block)) / 4);
  auto* features = reinterpret_cast<ethtool_gfeatures*>(values.data());
  features->cmd = ETHTOOL_GFEATURES;
  features->size = static_cast<uint32_t>(blocks);
  if (device.ask_ethtool(fd, features) != 0) return {};

  const auto is_active = [&](std::string_view wanted) {
    for (size_t i = 0; i < count; ++i) {
      const char* at = reinterpret_cast<const char*>(strings->data) + i * ETH_GSTRING_LEN;
      if (wanted != std::string_view(at, ::strnlen(at, ETH_GSTRING_LEN))) continue;
      return (features->features[i / 32].active >> (i % 32) & 1) != 0;
    }
    return false;
  };
  return {.tcp = is_active("tx-tcp-segmentation") && is_active("tx-tcp6-segmentation"),
          .udp = is_active("tx-udp-segmentation")};
}

}  // namespace

int PacketInterface::find(const std::string& wanted) {
  // Any socket will do to ask; one of this kind would need a privilege.
  const UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) return errno;
  if (wanted.empty() || wanted.size() >= IFNAMSIZ) return ENODEV;
  name = wanted;
  InterfaceRequest device(name);
  if (const int error = device.ask(fd.get(), SIOCGIFINDEX)) return error;
  index = device.request.ifr_ifindex;
  if (const int error = device.ask(fd.get(), SIOCGIFMTU)) return error;
  mtu = static_cast<uint32_t>(device.request.ifr_mtu);
  if (const int error = device.ask(fd.get(), SIOCGIFHWADDR)) return error;
  if (device.request.ifr_hwaddr.sa_family != ARPHRD_ETHER) return EPROTOTYPE;
  mac = MacAddress::from_bytes(reinterpret_cast<const uint8_t*>(device.request.ifr_hwaddr.sa_data));
  offloads = find_offloads(fd.get(), name);
  return 0;
}

bool PacketInterface::is_up() const {
  const UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  InterfaceRequest device(name);
  // Another interface may have the name by now.
  if (!fd || device.ask(fd.get(), SIOCGIFINDEX) != 0) return false;
  if (device.request.ifr_ifindex != index) return false;
  if (device.ask(fd.get(), SIOCGIFFLAGS) != 0) return false;
  return (device.request.ifr_flags & IFF_UP) != 0;
}

PacketRing::~PacketRing() {
  if (memory_ != nullptr) ::munmap(memory_, kBlocks * kBlockBytes);
}

int PacketRing::map(int fd) {
  void* memory = ::mmap(nullptr, kBlocks * kBlockBytes, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_POPULATE, fd, 0);
  if (memory == MAP_FAILED) return errno;
  memory_ = static_cast<uint8_t*>(memory);
  return 0;
}

bool PacketRing::next(RingFrame& frame) {
  while (left_ == 0) {
    release();
    if (!is_ours()) return false;
    open_ = true;
    left_ = block()->hdr.bh1.num_pkts;
    packet_ = reinterpret_cast<const uint8_t*>(block()) + block()->hdr.bh1.offset_to_first_pkt;
  }
  const auto* header = reinterpret_cast<const tpacket3_hdr*>(packet_);
  frame.bytes = packet_ + header->tp_mac;
  frame.header = frame.bytes - 10;
  frame.length = header->tp_snaplen;
  frame.whole = header->tp_snaplen == header->tp_len;
  packet_ += header->tp_next_offset;
  --left_;
  // Another CPU wrote it: its first lines are on their way while this one is dealt with.
  if (left_ > 0) {
    for (size_t line = 0; line < 3; ++line) __builtin_prefetch(packet_ + 64 * line);
  }
  return true;
}

void PacketRing::release() {
  if (!open_ || left_ > 0) return;
  open_ = false;
  std::atomic_ref<uint32_t>(block()->hdr.bh1.block_status)
      .store(TP_STATUS_KERNEL, std::memory_order_release);
  at_ = (at_ + 1) % kBlocks;
}

int PacketSockets::open_plain(const PacketInterface& device, std::string& step) {
  step = "socket(AF_PACKET)";
  plain = packet_socket();
  if (!plain) return errno;
  set_buffer(plain.get(), SO_RCVBUF, SO_RCVBUFFORCE, kReceiveBufferBytes);
  step = "PACKET_VNET_HDR";
  if (const int error = set_flag(plain.get(), PACKET_VNET_HDR)) return error;
  step = "PACKET_IGNORE_OUTGOING";
  if (const int error = set_flag(plain.get(), PACKET_IGNORE_OUTGOING)) return error;
  step = "SO_ATTACH_FILTER";
  if (const int error = attach_filter(plain.get(), closed_filter())) return error;
  step = "bind";
  return bind_to(plain.get(), device.index, ETH_P_ALL);
}

int PacketSockets::open_ring(const PacketInterface& device, std::string& step) {
  step = "socket(AF_PACKET)";
  ringed = packet_socket();
  if (!ringed) return errno;
  step = "PACKET_VERSION";
  const int version = TPACKET_V3;
  if (const int error =
          set_option(ringed.get(), SOL_PACKET, PACKET_VERSION, &version, sizeof(version))) {
    return error;
  }
  step = "PACKET_VNET_HDR";  // before the ring: it changes where frames begin in it
  if (const int error = set_flag(ringed.get(), PACKET_VNET_HDR)) return error;
  step = "PACKET_IGNORE_OUTGOING";
  if (const int error = set_flag(ringed.get(), PACKET_IGNORE_OUTGOING)) return error;
  step = "PACKET_RX_RING";
  tpacket_req3 request{};
  request.tp_block_size = PacketRing::kBlockBytes;
  request.tp_block_nr = PacketRing::kBlocks;
  request.tp_frame_size = 2048;  // of no meaning in this version, but checked
  request.tp_frame_nr = request.tp_block_size / request.tp_frame_size * request.tp_block_nr;
  request.tp_retire_blk_tov = PacketRing::kRetireMs;
  if (const int error =
          set_option(ringed.get(), SOL_PACKET, PACKET_RX_RING, &request, sizeof(request))) {
    return error;
  }
  step = "mmap";
  if (const int error = ring.map(ringed.get())) return error;
  step = "SO_ATTACH_FILTER";
  if (const int error = attach_filter(ringed.get(), closed_filter())) return error;
  step = "bind";
  return bind_to(ringed.get(), device.index, ETH_P_ALL);
}

int PacketSockets::open_sender(const PacketInterface& device, std::string& step) {
  step = "socket(AF_PACKET)";
  sender = packet_socket();
  if (!sender) return errno;
  set_buffer(sender.get(), SO_SNDBUF, SO_SNDBUFFORCE, kSendBufferBytes);
  step = "PACKET_VNET_HDR";
  if (const int error = set_flag(sender.get(), PACKET_VNET_HDR)) return error;
  // Past the queueing discipline nobody cuts super-packets for a device that cannot: the kernel
  // drops them there.
  if (device.offloads.tcp) (void)set_flag(sender.get(), PACKET_QDISC_BYPASS);
  step = "bind";
  return bind_to(sender.get(), device.index, 0);
}

int PacketSockets::accept(const ClassicProgram& filter) {
  const int error = attach_filter(plain.get(), filter);
  return error != 0 ? error : attach_filter(ringed.get(), filter);
}

uint64_t PacketSockets::take_drops() {
  uint64_t drops = 0;
  for (const UniqueFd* fd : {&plain, &ringed}) {
    tpacket_stats_v3 stats{};
    socklen_t bytes = fd == &plain ? sizeof(tpacket_stats) : sizeof(stats);
    if (::getsockopt(fd->get(), SOL_PACKET, PACKET_STATISTICS, &stats, &bytes) == 0) {
      drops += stats.tp_drops;
    }
  }
  return drops;
}

int attach_filter(int fd, const ClassicProgram& program) {
  ClassicProgram code = program;
  const sock_fprog filter{static_cast<unsigned short>(code.size()), code.data()};
  return set_option(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter));
}

int join_group(int fd, int index, uint16_t kind, const MacAddress& mac) {
  packet_mreq request{};
  request.mr_ifindex = index;
  request.mr_type = kind;
  request.mr_alen = MacAddress::kBytes;
  std::memcpy(request.mr_address, mac.bytes.data(), MacAddress::kBytes);
  return set_option(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &request, sizeof(request));
}

void leave_group(int fd, int index, uint16_t kind, const MacAddress& mac) {
  packet_mreq request{};
  request.mr_ifindex = index;
  request.mr_type = kind;
  request.mr_alen = MacAddress::kBytes;
  std::memcpy(request.mr_address, mac.bytes.data(), MacAddress::kBytes);
  (void)setsockopt(fd, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &request, sizeof request);
}

}  // namespace apo
