// Counts and drops what a loop sends, where it enters the kernel's stack: UDP packets to the peer's port.
// On stdin: "read" prints one JSON line. Ends when stdin does.
//
//   meter INTERFACE LINK_HEADER_BYTES
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../lib/tools/tcx_counter.h"
#include "loop.h"

int main(int argc, char** argv) {
  char error[512], line[64];
  if (argc != 3) return 2;
  const struct tcx_port* port =
      tcx_counter_start(argv[1], atoi(argv[2]), kPeerPort, 1, error, sizeof(error));
  if (port == NULL) {
    fprintf(stderr, "meter: %s\n", error);
    return 1;
  }
  printf("{\"ready\":true}\n");
  fflush(stdout);
  const volatile struct tcx_port* live = port;
  while (fgets(line, sizeof(line), stdin)) {
    // One packet is a super-packet here, too.
    loop_say(live->skbs, live->bytes);
  }
  return 0;
}
