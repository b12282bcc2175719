// The open links of this process by number, so that a worker's thread can speak of the link that the
// main thread opened: to open and close ports on it.
#pragma once

#include <cstdint>
#include <memory>

#include "links/link_kinds.h"

namespace apo {

// From any thread. The registry holds no link: it is found for as long as somebody else does.
[[nodiscard]] uint32_t register_link(const std::shared_ptr<OpenedLink>& link);
[[nodiscard]] std::shared_ptr<OpenedLink> find_link(uint32_t id);

}  // namespace apo
