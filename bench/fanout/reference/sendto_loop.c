// Reference: the plainest fan-out in C. One packet in, one sendto a receiver out, at once.
#include <stdint.h>
#include <sys/socket.h>

#include "loop.h"

int main(int argc, char** argv) {
  struct loop loop = loop_start(argc, argv);
  static uint8_t packet[kPacketBytes];
  for (;;) {
    const ssize_t length = recv(loop.fd, packet, sizeof(packet), 0);
    if (length < 0) return 1;
    for (int i = 0; i < loop.count; i++) {
      sendto(loop.fd, packet, (size_t)length, 0, (struct sockaddr*)&loop.receivers[i],
             sizeof(loop.receivers[i]));
    }
  }
}
