// Publishes the synthetic stream, a frame at a time, each frame a burst at its time, as cameras do.
//
//   publisher raw ADDRESS:PORT KBIT             bare RTP to a reference server
//   publisher udp|tcp rtsp://ADDRESS:PORT/PATH KBIT    ANNOUNCE, SETUP, RECORD; RTP over UDP or
//   interleaved
//
// On stdin: "send N" sends N frames, "send" goes on until "stop" (and then to the end of the GOP);
// either is answered by one JSON line with what was sent. Ends when stdin does. Each packet carries
// its send time.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "rtsp_client.h"
#include "samples.h"
#include "stream.h"

enum { kFramesPerSecond = 25, kGroup = 50 };

static struct stream stream;
static struct frame frame;
static struct rtsp_client client;
static int media_socket = -1;  // connected to where RTP goes
static int interleaved;
static uint64_t sent_packets, sent_bytes, unsent_packets;

static void die(const char* what) {
  fprintf(stderr, "publisher: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void expect_ok(const char* method, int status) {
  if (status == 200) return;
  fprintf(stderr, "publisher: %s was answered by %d\n%s\n", method, status, client.reply);
  exit(1);
}

static int udp_socket(int port) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), buffer = 4 << 20;
  if (fd < 0 || bind(fd, (struct sockaddr*)&at, sizeof(at)) < 0) return -1;
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
  return fd;
}

static void connect_media(struct sockaddr_in address, int port) {
  address.sin_port = htons((uint16_t)port);
  if (connect(media_socket, (struct sockaddr*)&address, sizeof(address)) < 0) die("connect");
}

// An even port and the next, as RTP wants them. Only the RTP socket sends; the other takes what
// comes.
static int open_pair(void) {
  for (int port = 18000; port < 19000; port += 2) {
    media_socket = udp_socket(port);
    if (media_socket < 0) continue;
    if (udp_socket(port + 1) >= 0) return port;
    close(media_socket);
  }
  die("no free port pair");
  return 0;
}

static void record(const char* url) {
  struct sockaddr_in address;
  char headers[256], track[512];
  if (rtsp_address(url, &address) < 0) die("the url must be rtsp://ADDRESS:PORT/PATH");
  rtsp_connect(&client, &address);
  expect_ok("OPTIONS", rtsp_request(&client, "OPTIONS", url, "", ""));
  expect_ok("ANNOUNCE", rtsp_request(&client, "ANNOUNCE", url, "Content-Type: application/sdp\r\n",
                                     stream_sdp()));
  snprintf(track, sizeof(track), "%s/streamid=0", url);
  if (interleaved) {
    snprintf(headers, sizeof(headers),
             "Transport: RTP/AVP/TCP;unicast;interleaved=0-1;mode=record\r\n");
    expect_ok("SETUP", rtsp_request(&client, "SETUP", track, headers, ""));
    media_socket = client.fd;
  } else {
    const int port = open_pair();
    snprintf(headers, sizeof(headers),
             "Transport: RTP/AVP/UDP;unicast;client_port=%d-%d;mode=record\r\n", port, port + 1);
    expect_ok("SETUP", rtsp_request(&client, "SETUP", track, headers, ""));
    const char* transport = rtsp_header(&client, "Transport");
    const char* server = transport ? strstr(transport, "server_port=") : NULL;
    if (server == NULL) die("SETUP was answered without server_port");
    connect_media(address, atoi(server + strlen("server_port=")));
  }
  expect_ok("RECORD", rtsp_request(&client, "RECORD", url, "Range: npt=0.000-\r\n", ""));
}

static void send_interleaved(uint8_t* packet, int length) {
  packet[0] = '$';
  packet[1] = 0;
  packet[2] = (uint8_t)(length >> 8);
  packet[3] = (uint8_t)length;
  for (int done = 0; done < length + kInterleavedBytes;) {
    const ssize_t sent = send(media_socket, packet + done,
                              (size_t)(length + kInterleavedBytes - done), MSG_NOSIGNAL);
    if (sent < 0) die("the server closed the connection");
    done += (int)sent;
  }
}

static void send_frame(uint32_t rtp_time) {
  stream_next(&stream, rtp_time, &frame);
  for (int i = 0; i < frame.packets; i++) {
    uint8_t* rtp = frame.bytes[i] + kInterleavedBytes;
    stream_stamp(rtp, frame.length[i], realtime_ns());
    if (interleaved) {
      send_interleaved(frame.bytes[i], frame.length[i]);
    } else if (send(media_socket, rtp, (size_t)frame.length[i], MSG_NOSIGNAL) < 0) {
      unsent_packets++;
      continue;
    }
    sent_packets++;
    sent_bytes += (uint64_t)frame.length[i];
  }
}

// Replies and receiver reports that the server sends: nobody reads them, so that nothing fills up.
static void discard_control(void) {
  char discarded[4096];
  if (client.fd <= 0) return;
  while (recv(client.fd, discarded, sizeof(discarded), MSG_DONTWAIT) > 0) {
  }
}

static int stdin_waits(void) {
  struct pollfd polled = {.fd = 0, .events = POLLIN};
  return poll(&polled, 1, 0) > 0;
}

static int64_t monotonic_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

// Sends `frames` frames, or (0) until stdin has something and a GOP is whole.
static void run(int frames) {
  const int64_t start = monotonic_ns(), interval = 1000000000LL / kFramesPerSecond;
  int64_t late_ns = 0;
  int stopping = 0, sent = 0;
  sent_packets = sent_bytes = unsent_packets = 0;
  for (; frames > 0 ? sent < frames : !(stopping && stream.frame % kGroup == 0); sent++) {
    const int64_t due = start + sent * interval;
    const struct timespec at = {due / 1000000000LL, due % 1000000000LL};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR) {
    }
    const int64_t late = monotonic_ns() - due;
    if (late > late_ns) late_ns = late;
    send_frame((uint32_t)(due / 1000 * kClockRate / 1000000));
    discard_control();
    if (frames == 0 && stdin_waits()) stopping = 1;
  }
  printf("{\"frames\":%d,\"packets\":%llu,\"bytes\":%llu,\"unsent\":%llu,\"lateUs\":%lld}\n", sent,
         (unsigned long long)sent_packets, (unsigned long long)sent_bytes,
         (unsigned long long)unsent_packets, (long long)(late_ns / 1000));
  fflush(stdout);
}

int main(int argc, char** argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: publisher raw ADDRESS:PORT KBIT | publisher udp|tcp URL KBIT\n");
    return 2;
  }
  setvbuf(stdin, NULL, _IONBF, 0);
  stream_start(&stream, atoi(argv[3]), kFramesPerSecond, kGroup);
  interleaved = strcmp(argv[1], "tcp") == 0;
  if (strcmp(argv[1], "raw") == 0) {
    char url[128];
    struct sockaddr_in address;
    snprintf(url, sizeof(url), "rtsp://%s", argv[2]);
    if (rtsp_address(url, &address) < 0) die("the address must be ADDRESS:PORT");
    open_pair();
    connect_media(address, ntohs(address.sin_port));
  } else {
    record(argv[2]);
  }
  printf("{\"ready\":\"%s\"}\n", argv[1]);
  fflush(stdout);
  char line[64];
  while (fgets(line, sizeof(line), stdin) != NULL) {
    int frames = 0;
    if (strncmp(line, "send", 4) != 0) continue;
    sscanf(line + 4, "%d", &frames);
    run(frames);
  }
  return 0;
}
