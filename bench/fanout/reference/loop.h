// What the two C references share: a socket that hears the publisher, the receivers' addresses,
// "ready".
#ifndef BENCH_LOOP_H_
#define BENCH_LOOP_H_

#include <netinet/in.h>

enum { kPacketBytes = 2048 };

struct loop {
  int fd;                         // receives from the publisher and sends to the receivers
  int count;                      // receivers
  struct sockaddr_in* receivers;  // ADDRESS, every second port from FIRST_PORT on
};

// Arguments: PORT ADDRESS FIRST_PORT RECEIVERS. Ends the process with a message when they are
// wrong.
struct loop loop_start(int argc, char** argv);

#endif  // BENCH_LOOP_H_
