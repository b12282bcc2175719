// The least that a program can do on a TUN device: read and write, one packet a call, with the
// virtio_net_hdr that lets super-packets through. See loop.h for how it is told what to do.
//
//   tun_loop DEVICE OWN_ADDRESS PEER_ADDRESS
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "loop.h"

#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

static struct vnet_header vnet;
static uint8_t packet[kPacketBytesMax + 1];

static int open_tun(const char* device) {
  const int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
  if (fd < 0) loop_die("/dev/net/tun");
  struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
  snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", device);
  if (ioctl(fd, TUNSETIFF, &request) < 0) loop_die("TUNSETIFF");
  const unsigned long offload = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_USO4 | TUN_F_USO6;
  if (ioctl(fd, TUNSETOFFLOAD, offload) < 0) loop_die("TUNSETOFFLOAD");
  return fd;
}

static void wait_for(int fd, short events) {
  struct pollfd entry = {.fd = fd, .events = events};
  poll(&entry, 1, 20);
}

static void receive(int fd, int mode) {
  struct iovec parts[2] = {{&vnet, sizeof(vnet)}, {packet, kPacketBytesMax}};
  const ssize_t got = readv(fd, parts, 2);
  if (got < (ssize_t)sizeof(vnet)) {
    wait_for(fd, POLLIN);
    return;
  }
  const size_t length = (size_t)got - sizeof(vnet);
  if (mode == kLoopIdle) return;
  if (mode == kLoopThrough) {
    if (!loop_turn(packet, length)) return;
    parts[1].iov_len = length;
    while (writev(fd, parts, 2) < 0 && errno == EAGAIN) wait_for(fd, POLLOUT);
  }
  loop_count(1, length);
}

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const int fd = open_tun(argv[1]);
  loop_start();
  for (int built = -1;;) {
    const int mode = loop_mode();
    if (mode != kLoopOut) {
      built = -1;
      receive(fd, mode);
      continue;
    }
    static size_t length;
    if (built != loop_bytes()) {
      built = loop_bytes();
      length = loop_packet(packet, &vnet, argv[2], argv[3], (size_t)built);
    }
    struct iovec parts[2] = {{&vnet, sizeof(vnet)}, {packet, length}};
    if (writev(fd, parts, 2) < 0) {
      if (errno != EAGAIN && errno != EIO) loop_die("writev");  // EIO: the device is not up yet
      wait_for(fd, POLLOUT);
    }
  }
}
