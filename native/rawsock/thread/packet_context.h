// What both ways of a native thread work on, from the link to the workers and back. One a thread, and
// only that thread touches it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "capture/packet_capture.h"
#include "guard/guard.h"
#include "ip/group_membership.h"
#include "ip/ip_address.h"
#include "ip/path_mtu.h"
#include "ip/steer_hash.h"
#include "links/link.h"
#include "memory/frame_pool.h"
#include "thread/link_counters.h"
#include "util/clock.h"

namespace apo {

struct PacketContext {
  AddressSet addresses;
  SteerKey steer_key;
  FramePool pool;
  LinkCounters counters;
  std::shared_ptr<Link> link;
  std::shared_ptr<PacketCapture> capture;  // null: nobody looks
  PathMtuCache path_mtus;
  std::unique_ptr<GuardView> guard;  // null: everybody may
  std::shared_ptr<GroupMembership> groups;
  GroupView group_view{};
  uint64_t now_us = 0;  // of this turn of the thread's loop

  void count(LinkCounter counter, uint64_t amount = 1) { counters.add(counter, amount); }

  void record(CaptureDirection direction, std::span<const uint8_t> bytes, const Offload& offload,
              LinkCounter reason) {
    if (capture) capture->record(direction, bytes, offload, reason, now_us);
  }
};

}  // namespace apo
