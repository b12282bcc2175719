// Runs a command with a pair of connected sockets at descriptors 3 and 4.
//
//   socket_pair seqpacket|dgram COMMAND…
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const int type = strcmp(argv[1], "dgram") == 0 ? SOCK_DGRAM : SOCK_SEQPACKET;
  int pair[2];
  // Whatever else this process was given is not the command's.
  for (int fd = 3; fd < 16; fd++) close(fd);
  if (socketpair(AF_UNIX, type, 0, pair) != 0) return perror("socketpair"), 1;
  if (pair[0] != 3 || pair[1] != 4) return fputs("descriptors 3 and 4 are taken\n", stderr), 1;
  execvp(argv[2], argv + 2);
  perror(argv[2]);
  return 1;
}
