// Sends one UDP super-packet by the kernel's own socket: DATAGRAMS datagrams of BYTES bytes in one call, which a device
// that segments by itself gets as one packet.
//
//   udp_segments ADDRESS PORT BYTES DATAGRAMS
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

static char payload[65536];

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  const int bytes = atoi(argv[3]);
  const size_t all = (size_t)bytes * (size_t)atoi(argv[4]);
  const struct addrinfo hints = {.ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICHOST};
  struct addrinfo* to = NULL;
  if (all > sizeof(payload) || getaddrinfo(argv[1], argv[2], &hints, &to) != 0) return 2;
  memset(payload, 'x', all);
  const int fd = socket(to->ai_family, SOCK_DGRAM, 0);
  if (setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &bytes, sizeof(bytes)) != 0 ||
      sendto(fd, payload, all, 0, to->ai_addr, to->ai_addrlen) != (ssize_t)all) {
    perror("udp_segments");
    return 1;
  }
  return 0;
}
