// The little of an RTSP 1.0 client that a publisher needs: blocking requests over one TCP
// connection.
#ifndef BENCH_RTSP_CLIENT_H_
#define BENCH_RTSP_CLIENT_H_

#include <netinet/in.h>

enum { kReplyBytes = 16384 };

struct rtsp_client {
  int fd;
  int cseq;
  char session[128];
  char reply[kReplyBytes];  // the last reply: header and body, NUL-terminated
};

// "rtsp://1.2.3.4:8554/path" to an address. Returns 0, or -1 when it does not look so.
int rtsp_address(const char* url, struct sockaddr_in* address);
// Connects, or ends the process with a message.
void rtsp_connect(struct rtsp_client* client, const struct sockaddr_in* address);
// Sends a request and waits for its reply. `headers` are whole lines or "". Returns the status
// code.
int rtsp_request(struct rtsp_client* client, const char* method, const char* url,
                 const char* headers, const char* body);
// A header's value in the last reply, or NULL. The pointer is into the reply.
const char* rtsp_header(const struct rtsp_client* client, const char* name);

#endif  // BENCH_RTSP_CLIENT_H_
