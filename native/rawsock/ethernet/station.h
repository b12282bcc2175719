// A station on an Ethernet link: answers for our addresses (ARP, RFC 826 and 5227; Neighbour
// Discovery, RFC 4861 and 4862), asks for those of others, and says where a packet of ours goes.
//
// Our addresses are used from the start ("optimistically", RFC 4429): they come from the settings,
// and nobody would be here to choose others. They are still probed for and announced; when somebody
// else has one, that is counted as a conflict, and the address is defended.
//
// Pure: no system calls, the time is handed in, frames go to a StationOutput. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "ethernet/arp.h"
#include "ethernet/ethernet.h"
#include "ethernet/ndp.h"
#include "ethernet/neighbours.h"
#include "ethernet/next_hop.h"
#include "ip/ip_address.h"

namespace apo {

struct StationConfig {
  MacAddress mac;
  AddressSet addresses;
  std::vector<Route> routes;  // a gateway is a route to a prefix of no bits
  size_t mtu = 1500;
  SteerKey key;
  size_t neighbours = Neighbours::kDefaultCapacity;
};

class StationOutput {
 public:
  virtual ~StationOutput() = default;
  // A whole frame: ARP or Neighbour Discovery.
  virtual void send_frame(std::span<const uint8_t> frame) = 0;
  // An IP packet that has waited for its neighbour; counts what becomes of it.
  virtual void send_packet(const MacAddress& to, std::span<const uint8_t> packet,
                           const Offload& offload) = 0;
  virtual void count(LinkCounter counter, uint64_t amount = 1) = 0;
};

class Station final : private NeighbourSink {
 public:
  static constexpr uint64_t kNever = UINT64_MAX;
  static constexpr size_t kMtuMin = 1280;
  static constexpr uint64_t kDefendUs = 10'000'000;  // RFC 5227 1.1

  explicit Station(const StationConfig& config);

  // When the link has come up, for the first time or again: whatever was learned is forgotten, our
  // addresses are probed for and announced, routers are asked for.
  void start(uint64_t now_us, StationOutput& out);

  // True: the payload of this type was ARP or Neighbour Discovery, and has been dealt with.
  bool input(uint16_t type, const MacAddress& from, std::span<const uint8_t> payload,
             uint64_t now_us, StationOutput& out);

  // Where this IP packet goes. When that is not known yet it has been copied (kTxParked) or is to
  // be dropped. The answer's address is valid until the next call.
  [[nodiscard]] Neighbours::Answer route(std::span<const uint8_t> packet, const Offload& offload,
                                         uint64_t now_us, StationOutput& out);

  [[nodiscard]] uint64_t deadline_us() const;
  void tick(uint64_t now_us, StationOutput& out);

  // The link's, or less when a router said so.
  [[nodiscard]] size_t mtu() const { return mtu_; }
  [[nodiscard]] const Neighbours& neighbours() const { return neighbours_; }

 private:
  // NeighbourSink
  void ask(const IpAddress& address, const MacAddress* last) override;
  void send(const MacAddress& to, std::span<const uint8_t> packet, const Offload& offload) override;
  void failed(const IpAddress& address) override;
  void count(LinkCounter counter, uint64_t amount) override;

  void arp_input(std::span<const uint8_t> payload, uint64_t now_us);
  void ndp_input(const MacAddress& from, std::span<const uint8_t> payload, uint64_t now_us);
  void solicitation(const NdpMessage& message, const MacAddress& from, uint64_t now_us);
  void advertisement(const NdpMessage& message, uint64_t now_us);
  void router_advertisement(const NdpMessage& message, uint64_t now_us);
  void conflict(const IpAddress& address, uint64_t now_us);

  void run_start_step(uint64_t now_us);
  void announce(const IpAddress& address);
  void probe(const IpAddress& address);
  void ask_routers();
  void send_arp(const MacAddress& to, const ArpMessage& message);
  void send_ndp(const MacAddress& to, const NdpMessage& message);
  [[nodiscard]] bool is_own(const IpAddress& address) const {
    return config_.addresses.contains(address.version, address.bytes.data());
  }
  // The address of ours that asks for a neighbour's. False: we have none of that version.
  [[nodiscard]] bool source_for(const IpAddress& target, IpAddress* source) const;

  const StationConfig config_;
  NextHopTable hops_;
  Neighbours neighbours_;
  StationOutput* out_ = nullptr;  // of the call that is running
  size_t mtu_;
  MacAddress group_mac_;  // what the last answer of `route` points to
  bool listens_to_routers_ = true;
  bool router_heard_ = false;
  size_t start_step_ = 0;
  uint64_t started_us_ = 0;
  bool started_ = false;
  uint64_t defended_us_ = 0;
};

}  // namespace apo
