#include "links/link_kinds.h"

#include <cerrno>

#include "links/fd_link.h"
#include "links/mem_wire.h"
#include "links/packet_link.h"
#include "links/tun_link.h"
#include "links/xdp_link.h"

namespace apo {
namespace {

struct LinkKind {
  std::string_view name;
  OpenedLink (*open)(const LinkSettings& settings);
};

constexpr LinkKind kLinkKinds[] = {
    {"mem", open_mem_link}, {"fd", open_fd_link},         {"tun", open_tun_link},
    {"xdp", open_xdp_link}, {"packet", open_packet_link},
};

}  // namespace

OpenedLink open_link(std::string_view kind, const LinkSettings& settings) {
  for (const LinkKind& known : kLinkKinds) {
    if (known.name == kind) return known.open(settings);
  }
  return OpenedLink::failed(EINVAL, "no such kind of link");
}

}  // namespace apo
