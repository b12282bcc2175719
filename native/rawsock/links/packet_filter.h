// The two classic BPF programs of the packet link: which frames come up at all, and which of its
// sockets each goes to. Classic ones, since they need no privilege beyond the socket's own.
#pragma once

#include <linux/filter.h>

#include <cstdint>
#include <vector>

#include "ethernet/ethernet.h"

namespace apo {

using ClassicProgram = std::vector<sock_filter>;

// Of a socket: ARP, IPv4 and IPv6 to `own` or to a group, untagged (or tagged for no VLAN).
[[nodiscard]] ClassicProgram frame_filter(const MacAddress& own);
// Of a socket: nothing.
[[nodiscard]] ClassicProgram closed_filter();

// Of a fan-out group of `queues` plain sockets followed by `queues` ring sockets: the flow's queue,
// and there the ring when the queue's bit in `rings` is set. ARP and Neighbour Discovery are queue
// 0's, and all fragments of a datagram are one queue's. Both directions of a flow are one queue's.
// `key` makes the choice unforeseeable.
[[nodiscard]] ClassicProgram fanout_program(uint32_t queues, uint32_t rings, uint32_t key);

}  // namespace apo
