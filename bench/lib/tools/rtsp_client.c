// See rtsp_client.h.
#define _GNU_SOURCE
#include "rtsp_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

static void die(const char* what) {
  fprintf(stderr, "rtsp client: %s: %s\n", what, errno ? strerror(errno) : "unexpected reply");
  exit(1);
}

int rtsp_address(const char* url, struct sockaddr_in* address) {
  char host[64];
  int port;
  memset(address, 0, sizeof(*address));
  if (sscanf(url, "rtsp://%63[0-9.]:%d", host, &port) != 2) return -1;
  address->sin_family = AF_INET;
  address->sin_port = htons((uint16_t)port);
  return inet_pton(AF_INET, host, &address->sin_addr) == 1 ? 0 : -1;
}

void rtsp_connect(struct rtsp_client* client, const struct sockaddr_in* address) {
  const int on = 1;
  const struct timeval patience = {.tv_sec = 15};
  memset(client, 0, sizeof(*client));
  client->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (client->fd < 0) die("socket");
  if (connect(client->fd, (const struct sockaddr*)address, sizeof(*address)) < 0) die("connect");
  setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  setsockopt(client->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
}

static void read_exactly(int fd, char* to, int bytes) {
  for (int have = 0; have < bytes;) {
    errno = 0;
    const ssize_t got = recv(fd, to + have, (size_t)(bytes - have), 0);
    if (got <= 0) die("the server closed the connection or kept silent");
    have += (int)got;
  }
}

// Reads one reply; interleaved frames before it are thrown away.
static void read_reply(struct rtsp_client* client) {
  char* reply = client->reply;
  int have = 0;
  for (;;) {
    read_exactly(client->fd, reply + have, 1);
    if (have == 0 && reply[0] == '$') {
      char rest[3], discarded[65536];
      read_exactly(client->fd, rest, 3);
      read_exactly(client->fd, discarded, (uint8_t)rest[1] << 8 | (uint8_t)rest[2]);
      continue;
    }
    have++;
    if (have >= 4 && memcmp(reply + have - 4, "\r\n\r\n", 4) == 0) break;
    if (have == kReplyBytes - 1) die("a reply that does not end");
  }
  reply[have] = 0;
  const char* length = rtsp_header(client, "Content-Length");
  const int body = length ? atoi(length) : 0;
  if (body < 0 || have + body >= kReplyBytes) die("a reply that is too long");
  read_exactly(client->fd, reply + have, body);
  reply[have + body] = 0;
}

const char* rtsp_header(const struct rtsp_client* client, const char* name) {
  const size_t length = strlen(name);
  for (const char* line = strstr(client->reply, "\r\n"); line != NULL;
       line = strstr(line + 2, "\r\n")) {
    if (strncasecmp(line + 2, name, length) != 0 || line[2 + length] != ':') continue;
    const char* value = line + 2 + length + 1;
    while (*value == ' ') value++;
    return value;
  }
  return NULL;
}

int rtsp_request(struct rtsp_client* client, const char* method, const char* url,
                 const char* headers, const char* body) {
  char request[8192];
  int length =
      snprintf(request, sizeof(request), "%s %s RTSP/1.0\r\nCSeq: %d\r\nUser-Agent: bench\r\n%s",
               method, url, ++client->cseq, headers);
  if (client->session[0])
    length += snprintf(request + length, sizeof(request) - (size_t)length, "Session: %s\r\n",
                       client->session);
  if (body[0])
    length += snprintf(request + length, sizeof(request) - (size_t)length,
                       "Content-Length: %zu\r\n", strlen(body));
  length += snprintf(request + length, sizeof(request) - (size_t)length, "\r\n%s", body);
  if (send(client->fd, request, (size_t)length, MSG_NOSIGNAL) != length) die(method);
  read_reply(client);
  const char* session = rtsp_header(client, "Session");
  if (session != NULL)
    snprintf(client->session, sizeof(client->session), "%.*s", (int)strcspn(session, ";\r"),
             session);
  return atoi(client->reply + 9);
}
