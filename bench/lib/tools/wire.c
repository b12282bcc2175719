// A wire between two TUN devices in two network namespaces: what goes in at one comes out at the other, with
// loss, delay, a rate and more, drawn from a seed. It takes the place of netem where the kernel has none.
//
//   wire NAMESPACE_A DEVICE_A NAMESPACE_B DEVICE_B SEED
//
// Namespaces are paths (/proc/PID/ns/net); the devices are made, and go with the program. Super-packets pass
// whole while nothing is drawn for single packets; otherwise they are cut, and what survives of one leaves in as
// large pieces as can be. With "whole" 1 a super-packet is one packet, for all that is drawn.
//
// On stdin: "set delayMs 20 loss 0.01 ..." (what is not named stays), "read"; both are answered by one line of
// JSON, the counts so far. Both directions are alike, each with its own draws and queue. Ends when stdin does.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "super_packet.h"

enum { kBatch = 64, kHeldMax = 1 << 20 };

// Probabilities 0 to 1, a packet (of a super-packet: a segment) each.
static struct {
  double delayMs, loss, duplicate, corrupt, reorder, reorderMs, mark, rateBitsPerSecond, queueBytes,
      whole;
} rules = {.reorderMs = 1, .queueBytes = 1 << 20};

static const struct {
  const char* name;
  double* value;
} rule_names[] = {
    {"delayMs", &rules.delayMs},
    {"loss", &rules.loss},
    {"duplicate", &rules.duplicate},
    {"corrupt", &rules.corrupt},
    {"reorder", &rules.reorder},
    {"reorderMs", &rules.reorderMs},
    {"mark", &rules.mark},
    {"rateBitsPerSecond", &rules.rateBitsPerSecond},
    {"queueBytes", &rules.queueBytes},
    {"whole", &rules.whole},
};

struct held {
  int64_t due_ns;
  uint64_t order;
  struct packet* packet;
};

struct direction {
  int from, to;
  uint64_t random;
  int64_t line_free_ns;  // when the last bit that was accepted has left, at the rate
  uint64_t order;
  struct held* heap;  // the earliest first
  int count;
};

static struct {
  unsigned long long packets, bytes, lost, queueFull, duplicated, corrupted, reordered, marked,
      refused;
} counts;

static void die(const char* what) {
  fprintf(stderr, "wire: %s: %s\n", what, strerror(errno));
  exit(1);
}

static int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000ll + now.tv_nsec;
}

static int open_device(const char* name_space, const char* device) {
  const int space = open(name_space, O_RDONLY | O_CLOEXEC);
  if (space < 0 || setns(space, CLONE_NEWNET) < 0) die(name_space);
  close(space);
  const int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) die("/dev/net/tun");
  struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
  snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", device);
  if (ioctl(fd, TUNSETIFF, &request) < 0) die(device);
  const unsigned long offload = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
  if (ioctl(fd, TUNSETOFFLOAD, offload) < 0) die("TUNSETOFFLOAD");
  return fd;
}

// xorshift64*: 0 to 1.
static double draw(struct direction* way) {
  way->random ^= way->random >> 12;
  way->random ^= way->random << 25;
  way->random ^= way->random >> 27;
  return (double)(way->random * 0x2545f4914f6cdd1dull >> 11) / 9007199254740992.0;
}

static int happens(struct direction* way, double probability) {
  return probability > 0 && draw(way) < probability;
}

static void put(const struct direction* way, const struct packet* packet) {
  const struct iovec parts[2] = {{(void*)&packet->vnet, sizeof(packet->vnet)},
                                 {packet->bytes, (size_t)packet->length}};
  if (writev(way->to, parts, 2) < 0) {
    counts.refused += 1;  // the device is down, or its owner does not keep up
    return;
  }
  counts.packets += 1;
  counts.bytes += (unsigned)packet->length;
}

static int before(const struct held* a, const struct held* b) {
  return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->order < b->order;
}

static void hold(struct direction* way, const struct packet* packet, int64_t due_ns) {
  if (way->count == kHeldMax) {
    counts.queueFull += 1;
    return;
  }
  struct packet* copy = malloc(sizeof(*copy) + (size_t)packet->length);
  if (!copy) die("malloc");
  *copy = *packet;
  copy->bytes = (uint8_t*)(copy + 1);
  memcpy(copy->bytes, packet->bytes, (size_t)packet->length);
  const struct held entry = {due_ns, way->order++, copy};
  int at = way->count++;
  for (; at > 0 && before(&entry, &way->heap[(at - 1) / 2]); at = (at - 1) / 2)
    way->heap[at] = way->heap[(at - 1) / 2];
  way->heap[at] = entry;
}

static struct packet* take_first(struct direction* way) {
  struct packet* first = way->heap[0].packet;
  const struct held last = way->heap[--way->count];
  int at = 0;
  for (int child; (child = 2 * at + 1) < way->count; at = child) {
    if (child + 1 < way->count && before(&way->heap[child + 1], &way->heap[child])) child += 1;
    if (!before(&way->heap[child], &last)) break;
    way->heap[at] = way->heap[child];
  }
  way->heap[at] = last;
  return first;
}

static void deliver_due(struct direction* way, int64_t now) {
  while (way->count > 0 && way->heap[0].due_ns <= now) {
    struct packet* packet = take_first(way);
    put(way, packet);
    free(packet);
  }
}

// Sends a packet off, or keeps it until it is due. Draws that concern whole packets have been made.
static void leave(struct direction* way, const struct packet* packet, int64_t now,
                  double extra_ms) {
  int64_t due = now;
  if (rules.rateBitsPerSecond > 0) {
    const double ns_per_byte = 8e9 / rules.rateBitsPerSecond;
    const int64_t free_ns = way->line_free_ns > now ? way->line_free_ns : now;
    if ((double)(free_ns - now) / ns_per_byte + packet->length > rules.queueBytes) {
      counts.queueFull += 1;
      return;
    }
    due = way->line_free_ns = free_ns + (int64_t)(packet->length * ns_per_byte);
  }
  due += (int64_t)((rules.delayMs + extra_ms) * 1e6);
  if (due <= now && way->count == 0)
    put(way, packet);
  else
    hold(way, packet, due);
}

static void flip_a_bit(struct direction* way, struct packet* packet) {
  complete_checksum(packet);
  packet->vnet.gso_type = 0;
  packet->bytes[(int)(draw(way) * packet->length)] ^= (uint8_t)(1 << (int)(draw(way) * 8));
  counts.corrupted += 1;
}

// A packet of one segment, with everything drawn for it.
static void pass_single(struct direction* way, struct packet* packet, int64_t now) {
  double extra_ms = 0;
  if (happens(way, rules.mark) && mark_congestion(packet)) counts.marked += 1;
  if (happens(way, rules.duplicate)) {
    counts.duplicated += 1;
    leave(way, packet, now, 0);
  }
  if (happens(way, rules.corrupt)) flip_a_bit(way, packet);
  if (happens(way, rules.reorder)) {
    counts.reordered += 1;
    extra_ms = rules.reorderMs;
  }
  leave(way, packet, now, extra_ms);
}

// The segments that may leave as one piece: at most 100 microseconds of the line.
static int piece_limit(const struct packet* packet) {
  if (rules.mark + rules.duplicate + rules.corrupt + rules.reorder > 0) return 1;
  if (rules.rateBitsPerSecond <= 0 || packet->vnet.gso_bytes == 0) return kPacketBytesMax;
  const double most = rules.rateBitsPerSecond / 8 / 1e4 / packet->vnet.gso_bytes;
  return most < 1 ? 1 : (int)most;
}

static void pass(struct direction* way, struct packet* packet, int64_t now) {
  static uint8_t piece_bytes[kPacketBytesMax];
  if (rules.whole > 0) {
    if (happens(way, rules.loss))
      counts.lost += 1;
    else
      pass_single(way, packet, now);
    return;
  }
  const int segments = segment_count(packet), limit = piece_limit(packet);
  for (int first = 0; first < segments;) {
    int count = 0;
    while (first + count < segments && count < limit && !happens(way, rules.loss)) count += 1;
    const int lost = first + count < segments && count < limit;
    if (count > 0) {
      struct packet piece = {.bytes = piece_bytes};
      struct packet* passing = packet;
      if (count < segments) take_segments(packet, first, count, passing = &piece);
      if (limit == 1)
        pass_single(way, passing, now);
      else
        leave(way, passing, now, 0);
    }
    counts.lost += (unsigned)lost;
    first += count + lost;
  }
}

// Reads a batch; whether there may be more.
static int receive(struct direction* way) {
  static uint8_t bytes[kPacketBytesMax];
  for (int i = 0; i < kBatch; i++) {
    struct packet packet = {.bytes = bytes};
    const struct iovec parts[2] = {{&packet.vnet, sizeof(packet.vnet)}, {bytes, sizeof(bytes)}};
    const ssize_t got = readv(way->from, parts, 2);
    if (got <= (ssize_t)sizeof(packet.vnet)) return 0;
    packet.length = (int)(got - (ssize_t)sizeof(packet.vnet));
    pass(way, &packet, now_ns());
  }
  return 1;
}

static void obey(char* line) {
  char *rest = NULL, *word = strtok_r(line, " \n", &rest);
  if (word && strcmp(word, "set") == 0) {
    while ((word = strtok_r(NULL, " \n", &rest))) {
      const char* value = strtok_r(NULL, " \n", &rest);
      double* found = NULL;
      for (size_t i = 0; i < sizeof(rule_names) / sizeof(rule_names[0]); i++)
        if (strcmp(word, rule_names[i].name) == 0) found = rule_names[i].value;
      if (!found || !value) {
        fprintf(stderr, "wire: no rule \"%s\"\n", word);
        exit(2);
      }
      *found = strtod(value, NULL);
    }
  }
  printf("{\"packets\":%llu,\"bytes\":%llu,\"lost\":%llu,\"queueFull\":%llu,\"duplicated\":%llu,",
         counts.packets, counts.bytes, counts.lost, counts.queueFull, counts.duplicated);
  printf("\"corrupted\":%llu,\"reordered\":%llu,\"marked\":%llu,\"refused\":%llu}\n",
         counts.corrupted, counts.reordered, counts.marked, counts.refused);
  fflush(stdout);
}

static void wait_for_more(struct direction* ways, struct pollfd* polled) {
  int64_t due = INT64_MAX;
  for (int i = 0; i < 2; i++)
    if (ways[i].count > 0 && ways[i].heap[0].due_ns < due) due = ways[i].heap[0].due_ns;
  int64_t left = due - now_ns();
  if (left < 0) left = 0;
  const struct timespec wait = {left / 1000000000, left % 1000000000};
  ppoll(polled, 3, due == INT64_MAX ? NULL : &wait, NULL);
}

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  prctl(PR_SET_TIMERSLACK, 1);
  const int a = open_device(argv[1], argv[2]), b = open_device(argv[3], argv[4]);
  const uint64_t seed = strtoull(argv[5], NULL, 10) * 2 + 1;
  struct direction ways[2] = {{.from = a, .to = b, .random = seed * 0x9e3779b97f4a7c15ull},
                              {.from = b, .to = a, .random = seed * 0xd1342543de82ef95ull}};
  for (int i = 0; i < 2; i++) {
    ways[i].heap = malloc(kHeldMax * sizeof(struct held));
    if (!ways[i].heap) die("malloc");
  }
  printf("{\"ready\":true}\n");
  fflush(stdout);
  struct pollfd polled[3] = {
      {.fd = 0, .events = POLLIN}, {.fd = a, .events = POLLIN}, {.fd = b, .events = POLLIN}};
  for (int more = 0;;) {
    if (!more) wait_for_more(ways, polled);
    if (polled[0].revents) {
      char line[256];
      if (!fgets(line, sizeof(line), stdin)) return 0;
      obey(line);
      polled[0].revents = 0;
    }
    more = 0;
    for (int i = 0; i < 2; i++) {
      more |= receive(&ways[i]);
      deliver_due(&ways[i], now_ns());
    }
    if (more) poll(polled, 1, 0);
  }
}
