// A station that is told anything: the input is a row of steps, each a byte that says what happens,
// a byte that says how much time passes, a length, and the bytes of a frame's payload. Neighbour
// Discovery gets its hop limit and checksum made right, or nothing would come past them.
#include <cstdlib>
#include <vector>

#include "ethernet/station.h"
#include "wire/checksum.h"
#include "wire/ipv6.h"

namespace {

using namespace apo;

constexpr MacAddress kMac{{2, 0, 0, 0, 0, 1}};

void require(bool condition) {
  if (!condition) std::abort();
}

class Output final : public StationOutput {
 public:
  void send_frame(std::span<const uint8_t> frame) override {
    const auto view = EthernetView::parse(frame);
    require(view && view->source() == kMac && view->destination() != kMac);
    if (view->type() == ethertype::kArp) {
      require(ArpMessage::parse(view->payload()).has_value());
    } else {
      require(NdpMessage::parse(view->payload()).has_value());
    }
  }
  void send_packet(const MacAddress& to, std::span<const uint8_t> packet, const Offload&) override {
    require(to.is_station() && packet.size() >= 20);
  }
  void count(LinkCounter, uint64_t) override {}
};

std::vector<uint8_t> repaired(std::span<const uint8_t> bytes) {
  std::vector<uint8_t> packet(bytes.begin(), bytes.end());
  if (packet.size() < 44) return packet;
  packet[0] = 0x60;
  wire::store16(&packet[wire::ipv6_field::kPayloadLength],
                static_cast<uint32_t>(packet.size() - 40));
  packet[wire::ipv6_field::kNextHeader] = 58;
  packet[wire::ipv6_field::kHopLimit] = 255;
  wire::store16(&packet[42], 0);
  const auto length = static_cast<uint32_t>(packet.size() - 40);
  const wire::Sum sum = wire::checksum_pseudo_header(&packet[8], 16, length, 58);
  wire::store16(&packet[42], wire::checksum_finish(wire::checksum_add(sum, &packet[40], length)));
  return packet;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  StationConfig config;
  config.mac = kMac;
  const uint8_t own4[] = {10, 0, 0, 1};
  const uint8_t own6[16] = {0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  config.addresses.add({{IpAddress::from_bytes(4, own4), 24}});
  config.addresses.add({{IpAddress::from_bytes(6, own6), 64}});
  config.neighbours = 8;
  Station station(config);
  Output out;
  uint64_t now_us = 1;
  station.start(now_us, out);
  while (size >= 3) {
    const uint8_t what = data[0];
    now_us += static_cast<uint64_t>(data[1]) * 50'000;
    const size_t length = std::min<size_t>(data[2], size - 3);
    const std::span<const uint8_t> bytes{data + 3, length};
    data += 3 + length;
    size -= 3 + length;
    MacAddress from{{2, 0, 0, 0, 0, static_cast<uint8_t>(2 + (what >> 6))}};
    switch (what & 3) {
      case 0:
        (void)station.input(ethertype::kArp, from, bytes, now_us, out);
        break;
      case 1:
        (void)station.input(ethertype::kIpv6, from, bytes, now_us, out);
        break;
      case 2:
        (void)station.input(ethertype::kIpv6, from, repaired(bytes), now_us, out);
        break;
      default: {
        const auto answer = station.route(bytes, {}, now_us, out);
        require(!answer.mac || *answer.mac != MacAddress{});
      }
    }
    station.tick(now_us, out);
    require(station.deadline_us() > now_us);
    require(station.neighbours().size() <= 8 && station.neighbours().waiting() <= 256);
    require(station.mtu() >= 1280 && station.mtu() <= 1500);
  }
  return 0;
}
