// See tun_link.h.
#include "links/tun_link.h"

#include <arpa/inet.h>

#include <cerrno>
#include <charconv>
#include <string_view>

#include "links/fd_link.h"
#include "links/tun_device.h"

namespace apo {
namespace {

constexpr int64_t kQueuesMax = 16;
constexpr int64_t kMtuMin = 68;
constexpr int64_t kMtuMax = 65'535;

// "10.0.0.2/24"; nullopt: not that.
std::optional<IpPrefix> parse_prefix(std::string_view text) {
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  const std::string address(text.substr(0, slash));
  const std::string_view bits = text.substr(slash + 1);
  IpPrefix prefix;
  uint8_t bytes[16];
  if (::inet_pton(AF_INET, address.c_str(), bytes) == 1) {
    prefix.address = IpAddress::from_bytes(4, bytes);
  } else if (::inet_pton(AF_INET6, address.c_str(), bytes) == 1) {
    prefix.address = IpAddress::from_bytes(6, bytes);
  } else {
    return std::nullopt;
  }
  const auto [end, error] =
      std::from_chars(bits.data(), bits.data() + bits.size(), prefix.prefix_bits);
  if (error != std::errc() || end != bits.data() + bits.size()) return std::nullopt;
  if (prefix.prefix_bits > prefix.address.size() * 8) return std::nullopt;
  return prefix;
}

// "10.0.0.2/24, fd00::2/64"; false: one of them is none.
bool parse_prefixes(std::string_view text, std::vector<IpPrefix>& prefixes) {
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    std::string_view part = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    while (part.starts_with(' ')) part.remove_prefix(1);
    while (part.ends_with(' ')) part.remove_suffix(1);
    const std::optional<IpPrefix> prefix = parse_prefix(part);
    if (!prefix) return false;
    prefixes.push_back(*prefix);
  }
  return true;
}

}  // namespace

OpenedLink open_tun_link(const LinkSettings& settings) {
  TunDevice::Options options;
  options.name = settings.text("device").value_or("apo%d");
  options.queues = static_cast<size_t>(settings.integer("queues", 1, kQueuesMax, 1));
  if (const int64_t mtu = settings.integer("mtu", kMtuMin, kMtuMax, 0); mtu != 0) {
    options.mtu = static_cast<uint32_t>(mtu);
  }
  options.own = settings.addresses;
  if (!parse_prefixes(settings.text("hostAddress").value_or(""), options.host)) {
    return OpenedLink::failed(EINVAL, "hostAddress");
  }
  auto device = std::make_shared<TunDevice>();
  if (const int error = device->open(options); error != 0) {
    return OpenedLink::failed(error, device->step());
  }
  OpenedLink link;
  for (UniqueFd& fd : device->descriptors()) {
    FdLinkOptions queue;
    queue.fd = std::move(fd);
    queue.kind = FdKind::kTun;
    queue.mtu = device->mtu();
    queue.header_bytes = device->header_bytes();
    queue.features = device->features();
    queue.on_close = [device] { device->remove(); };
    std::shared_ptr<FdLink> one = FdLink::create(std::move(queue));
    if (!one) return OpenedLink::failed(EMFILE, "epoll_create1");
    link.queues.push_back(std::move(one));
  }
  link.addresses = settings.addresses;
  link.device = device->name();
  return link;
}

}  // namespace apo
