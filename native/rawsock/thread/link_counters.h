// What the native thread counts, by dotted name. One list: the enumeration, the names that
// TypeScript reads (through `linkCounterNames`) and the size of the shared array all come from it.
//
// Every received packet is counted once more, as delivered, answered or dropped for one reason;
// every packet to be sent likewise. So rx.packets + tx.looped = rx.delivered + rx.answered + rx.merged +
// the sum of rx.dropped.* + the fragments that wait for others, and what the workers published =
// tx.packets + tx.parked + the sum of tx.dropped.* (what became of parked ones is told by neighbour.*;
// the native thread's own replies are counted under icmp.* and tcp.*).
//
// What a bad `mem` wire does to a packet (wire.*) its sender counts, for which it has been sent. So once
// all is quiet, over all runtimes of a wire: packets put on it (workers' and the threads' own, each
// fragment for itself) + wire.duplicated = rx.packets + wire.lost + wire.lostInBurst + wire.queueFull.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

namespace apo {

// clang-format off
#define APO_LINK_COUNTERS(X)                                                                       \
  X(kRxPackets,               "rx.packets")                 /* taken from the wire */             \
  X(kRxBytes,                 "rx.bytes")                                                          \
  X(kRxDelivered,             "rx.delivered")               /* pushed to a worker's ring */       \
  X(kRxAnswered,              "rx.answered")                /* echo requests */                   \
  X(kRxReassembled,           "rx.reassembled")            /* datagrams, of fragments */           \
  X(kRxMerged,                "rx.merged")                 /* fragments of these but one each */   \
  X(kRxPartialChecksums,      "rx.partialChecksums")        /* left to hardware, by a neighbour */ \
  X(kRxBatches,               "rx.batches")                 /* polls that found packets */        \
  X(kRxWakes,                 "rx.wakes")                   /* sleeping workers woken */          \
  X(kRxDroppedBlacklist,      "rx.dropped.blacklist")       /* the guard: a blocked source */      \
  X(kRxDroppedRateLimit,      "rx.dropped.rateLimit")       /* the guard: too many */              \
  X(kRxDroppedHeader,         "rx.dropped.header")          /* version, or a length that lies */  \
  X(kRxDroppedHeaderChecksum, "rx.dropped.headerChecksum")                                         \
  X(kRxDroppedOptions,        "rx.dropped.options")         /* malformed, or source routes */     \
  X(kRxDroppedSource,         "rx.dropped.source")          /* one that nobody may have */        \
  X(kRxDroppedLand,           "rx.dropped.land")            /* from and to the same end */        \
  X(kRxDroppedSpoofed,        "rx.dropped.spoofed")         /* from an address of ours */         \
  X(kRxDroppedNotOurs,        "rx.dropped.notOurs")         /* to somebody else */                \
  X(kRxDroppedGroup,          "rx.dropped.group")           /* to a group, and not wanted here */  \
  X(kRxDroppedFragmentLength, "rx.dropped.fragmentLength") /* no data, or not times 8 */           \
  X(kRxDroppedFragmentTiny,   "rx.dropped.fragmentTiny")   /* headers in two of them */            \
  X(kRxDroppedFragmentTooLong, "rx.dropped.fragmentTooLong") /* over 65,535 in all */              \
  X(kRxDroppedFragmentDuplicate, "rx.dropped.fragmentDuplicate") /* one like it is there */        \
  X(kRxDroppedFragmentOverlap, "rx.dropped.fragmentOverlap") /* with all of the datagram */        \
  X(kRxDroppedFragmentMismatch, "rx.dropped.fragmentMismatch") /* two ends; ECN */                 \
  X(kRxDroppedFragmentTooMany, "rx.dropped.fragmentTooMany") /* in one datagram */                 \
  X(kRxDroppedFragmentMemory, "rx.dropped.fragmentMemory") /* its share is used up */              \
  X(kRxDroppedFragmentTimeout, "rx.dropped.fragmentTimeout") /* others never came */               \
  X(kRxDroppedExtension,      "rx.dropped.extensionHeader")                                        \
  X(kRxDroppedProtocol,       "rx.dropped.protocol")        /* nothing here speaks it */          \
  X(kRxDroppedUdpLength,      "rx.dropped.udpLength")                                              \
  X(kRxDroppedUdpChecksum,    "rx.dropped.udpChecksum")                                            \
  X(kRxDroppedUdpPort,        "rx.dropped.udpPort")         /* port 0 at either end */            \
  X(kRxDroppedTcpLength,      "rx.dropped.tcpLength")       /* offset outside segment */           \
  X(kRxDroppedTcpChecksum,    "rx.dropped.tcpChecksum")                                            \
  X(kRxDroppedTcpPort,        "rx.dropped.tcpPort")         /* port 0 at either end */             \
  X(kRxDroppedTcpOptions,     "rx.dropped.tcpOptions")      /* a length that lies */               \
  X(kRxDroppedTcpNull,        "rx.dropped.tcpNull")         /* no flag that matters */             \
  X(kRxDroppedTcpXmas,        "rx.dropped.tcpXmas")         /* FIN, PSH, URG; or all */            \
  X(kRxDroppedTcpSynFin,      "rx.dropped.tcpSynFin")                                              \
  X(kRxDroppedTcpSynRst,      "rx.dropped.tcpSynRst")                                              \
  X(kRxDroppedTcpFin,         "rx.dropped.tcpFin")          /* FIN without ACK */                  \
  X(kRxDroppedUnopened,       "rx.dropped.unopened")        /* no such UDP port open */           \
  X(kRxDroppedIcmpLength,     "rx.dropped.icmpLength")                                             \
  X(kRxDroppedIcmpChecksum,   "rx.dropped.icmpChecksum")                                           \
  X(kRxDroppedIcmpType,       "rx.dropped.icmpType")        /* not handled */                     \
  X(kRxDroppedIcmpQuote,      "rx.dropped.icmpQuote")       /* quotes no packet of ours */        \
  X(kRxDroppedTooBig,         "rx.dropped.tooBig")          /* larger than a pool frame */        \
  X(kRxDroppedNoWorker,       "rx.dropped.noWorker")        /* its shard has no worker */         \
  X(kRxDroppedWorkerFull,     "rx.dropped.workerFull")      /* the worker's ring is full */       \
  X(kRxDroppedPoolEmpty,      "rx.dropped.poolEmpty")                                              \
  X(kRxDroppedVnetHeader,     "rx.dropped.vnetHeader")      /* does not fit its packet */          \
  X(kRxDroppedClosing,        "rx.dropped.closing")         /* in the inbox at the end */         \
  X(kRxDroppedRingFull,       "rx.dropped.ringFull")        /* in the kernel: we are too slow */   \
  X(kRxDroppedFrame,          "rx.dropped.frame")           /* no frame of this network */         \
  X(kRxReclaimed,             "rx.reclaimed")               /* delivered, taken back unread */    \
  X(kTxPackets,               "tx.packets")                 /* of workers, put on the wire */     \
  X(kTxBytes,                 "tx.bytes")                                                          \
  X(kTxFragments,             "tx.fragments")               /* pieces of packets too long */      \
  X(kTxSegments,              "tx.segments")                /* of super-packets split here */     \
  X(kTxLooped,                "tx.looped")                  /* to an address of our own */        \
  X(kTxDroppedDescriptor,     "tx.dropped.descriptor")      /* does not fit its frame */          \
  X(kTxDroppedSource,         "tx.dropped.source")          /* not an address of ours */          \
  X(kTxDroppedTooBig,         "tx.dropped.tooBig")          /* longer than the MTU */             \
  X(kTxDroppedNoRoute,        "tx.dropped.noRoute")         /* nobody has that address */         \
  X(kTxDroppedInboxFull,      "tx.dropped.inboxFull")       /* the receiver does not keep up */   \
  X(kTxDroppedLinkFull,       "tx.dropped.linkFull")        /* the other side does not read */     \
  X(kTxDroppedLinkEnded,      "tx.dropped.linkEnded")       /* there is no other side */           \
  X(kTxDroppedRefused,        "tx.dropped.refused")         /* the kernel does not take it */      \
  X(kTxParked,                "tx.parked")                  /* of workers: wait for a next hop */  \
  X(kTxDroppedUnresolved,     "tx.dropped.unresolved")      /* too many next hops asked for */     \
  X(kTxDroppedLinkDown,       "tx.dropped.linkDown")        /* the interface is down or gone */    \
  X(kWireLost,                "wire.lost")                  /* mem: sent, and lost on the wire */ \
  X(kWireLostInBurst,         "wire.lostInBurst")           /* while the line was bad */          \
  X(kWireQueueFull,           "wire.queueFull")             /* before the rate limit */           \
  X(kWireCorrupted,           "wire.corrupted")             /* a bit was flipped */               \
  X(kWireDuplicated,          "wire.duplicated")            /* copies made */                     \
  X(kWireReordered,           "wire.reordered")             /* held back */                       \
  X(kIcmpEchoReplies,         "icmp.echoReplies")                                                  \
  X(kIcmpUnreachables,        "icmp.unreachables")                                                 \
  X(kIcmpErrors,              "icmp.errors")                /* of other kinds */                  \
  X(kPathMtuLowered,          "path.mtuLowered")            /* by routers on the way */           \
  X(kGroupQueries,            "group.queries")              /* of routers: IGMP, MLD */            \
  X(kGroupReports,            "group.reports")              /* sent, to join, leave and answer */  \
  X(kTcpResets,               "tcp.resets")                 /* to ports that nobody opened */     \
  X(kIcmpLimited,             "icmp.limited")               /* errors over their budget */        \
  X(kIcmpUndelivered,         "icmp.undelivered")           /* replies the wire did not take */   \
  X(kLinkErrors,              "link.errors")                /* reading that failed */              \
  X(kLinkEnded,               "link.ended")                 /* the peer or the device has gone */  \
  X(kNeighbourAsks,           "neighbour.asks")             /* ARP requests, solicitations */      \
  X(kNeighbourAnswers,        "neighbour.answers")          /* to those of others */               \
  X(kNeighbourResolved,       "neighbour.resolved")                                                \
  X(kNeighbourReleased,       "neighbour.released")         /* packets that waited, sent */        \
  X(kNeighbourDroppedUnreachable, "neighbour.dropped.unreachable") /* no answer came */            \
  X(kNeighbourDroppedDisplaced, "neighbour.dropped.displaced") /* for newer ones that wait */      \
  X(kNeighbourDroppedLink,    "neighbour.dropped.link")     /* the link did not take it */         \
  X(kNeighbourChanged,        "neighbour.changed")          /* another hardware address */         \
  X(kNeighbourFailed,         "neighbour.failed")           /* did not answer, forgotten */        \
  X(kNeighbourEvicted,        "neighbour.evicted")          /* made room in a full cache */        \
  X(kNeighbourLimited,        "neighbour.limited")          /* questions over their budget */      \
  X(kNeighbourIgnored,        "neighbour.ignored")          /* unasked for, or not followed */     \
  X(kNeighbourInvalid,        "neighbour.invalid")          /* malformed ARP, NDP */               \
  X(kNeighbourConflicts,      "neighbour.conflicts")        /* an address of ours elsewhere */     \
  X(kLinkDowns,               "link.downs")                 /* the interface went down */          \
  X(kPollSleeps,              "poll.sleeps")                                                       \
  X(kRingCorrupt,             "ring.corrupt")               /* indices that cannot be */
// clang-format on

enum class LinkCounter : uint32_t {
#define APO_COUNTER_ENUM(id, name) id,
  APO_LINK_COUNTERS(APO_COUNTER_ENUM)
#undef APO_COUNTER_ENUM
      kCount
};

inline constexpr size_t kLinkCounters = static_cast<size_t>(LinkCounter::kCount);

inline constexpr const char* kLinkCounterNames[kLinkCounters] = {
#define APO_COUNTER_NAME(id, name) name,
    APO_LINK_COUNTERS(APO_COUNTER_NAME)
#undef APO_COUNTER_NAME
};

// A view over a BigUint64Array; written by the native thread alone, read by anyone.
class LinkCounters {
 public:
  LinkCounters() = default;
  explicit LinkCounters(std::span<uint64_t, kLinkCounters> cells) : cells_(cells.data()) {}

  void add(LinkCounter counter, uint64_t amount = 1) {
    std::atomic_ref<uint64_t> cell(cells_[static_cast<size_t>(counter)]);
    cell.store(cell.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
  }

 private:
  uint64_t* cells_ = nullptr;
};

}  // namespace apo
