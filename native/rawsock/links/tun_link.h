// A TUN device of our own as a link: one descriptor a queue.
#pragma once

#include "links/link_kinds.h"

namespace apo {

// Kind "tun". Settings: `device` (may have one "%d"), `queues`, `mtu`, `hostAddress` (the kernel's
// addresses on it with their prefixes, separated by commas).
[[nodiscard]] OpenedLink open_tun_link(const LinkSettings& settings);

}  // namespace apo
