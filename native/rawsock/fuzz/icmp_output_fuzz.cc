// Any packet as one to complain about, with every kind of error; and as a TCP segment to reset: what
// is sent is valid, short enough, and never about an error or a reset.
#include <array>
#include <vector>

#include "input_harness.h"
#include "ip/ip_output.h"
#include "wire/icmp.h"
#include "wire/tcp.h"

namespace {

using namespace apo;
using fuzz::require;

void check_error(std::span<const uint8_t> error, std::span<const uint8_t> offender) {
  const bool six = error[0] >> 4 == 6;
  const size_t ip = ip_header_bytes(six ? 6 : 4);
  require(error.size() <= (six ? 1280u : 576u));
  require(error.size() - ip - wire::IcmpView::kHeaderBytes <= offender.size());
  wire::Sum sum = 0;
  if (six) {
    require(wire::Ipv6View::parse(error)->total_length() == error.size());
    sum = wire::checksum_pseudo_header(error.data() + 8, 16,
                                       static_cast<uint32_t>(error.size() - ip), 58);
  } else {
    require(wire::Ipv4View::parse(error)->total_length() == error.size());
  }
  require(wire::checksum_is_valid(wire::checksum_add(sum, error.data() + ip, error.size() - ip)));
  // Nothing is said about what was just said.
  static uint8_t again[1500];
  require(build_icmp_error({}, error, again) == 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  static uint8_t out[1500];
  const std::span<const uint8_t> packet{data + 1, size - 1};
  constexpr uint8_t kKinds = static_cast<uint8_t>(IcmpErrorKind::kIncompleteHeaderChain) + 1;
  const IcmpError error = {static_cast<IcmpErrorKind>(data[0] % kKinds), 1280};
  const size_t length = build_icmp_error(error, packet, out);
  if (length > 0) check_error({out, length}, packet);

  const bool six = !packet.empty() && packet[0] >> 4 == 6;
  if (packet.size() < ip_header_bytes(six ? 6 : 4)) return 0;
  InputPacket input;
  input.version = six ? 6 : 4;
  input.length = static_cast<uint32_t>(packet.size());
  input.upper_offset = static_cast<uint32_t>(ip_header_bytes(input.version));
  input.source = packet.data() + (six ? 8 : 12);
  input.destination = packet.data() + (six ? 24 : 16);
  const size_t reset = build_tcp_reset(input, packet, out);
  if (reset == 0) return 0;
  require(reset == input.upper_offset + 20u);
  const auto tcp = wire::TcpView::parse({out + input.upper_offset, 20});
  require(tcp && tcp->has(wire::tcp_flag::kRst));
  std::array<uint8_t, 60> answer;
  std::memcpy(answer.data(), out, reset);
  input.length = static_cast<uint32_t>(reset);
  require(build_tcp_reset(input, {answer.data(), reset}, out) == 0);
  return 0;
}
