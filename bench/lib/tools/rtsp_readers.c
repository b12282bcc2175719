// N readers in one process: each its own RTSP session, set up as players do, media counted and
// thrown away.
//
//   rtsp_readers udp rtsp://ADDRESS:PORT/PATH READERS FIRST_PORT    media go to port pairs of
//   somebody else's rtsp_readers tcp rtsp://ADDRESS:PORT/PATH READERS 0 SAMPLE...   interleaved;
//   readers SAMPLE measure delay rtsp_readers raw rtsp://ADDRESS:PORT/ READERS 0 SAMPLE...       a
//   TCP connection is a reader at once
//
// On stdin: "reset", "read" (one JSON line). Ends when stdin does. A session that fails ends the
// process.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "interleaved_counter.h"
#include "rtsp_client.h"

enum {
  kMaxReaders = 4096,
  kMaxSamples = 16,
  kAtOnce = 32,
  kReadBytes = 1 << 18,
  kKeepAliveMs = 20000
};
enum step { kIdle, kOptions, kDescribe, kSetup, kPlay, kPlaying };

struct reader {
  int fd;
  int index;
  enum step step;
  int cseq;
  char session[128];
  char control[512];
  char* reply;  // while a handshake goes on
  int reply_have;
  struct interleaved_counter counter;
};

static struct reader readers[kMaxReaders];
static struct sample samples[kMaxSamples];
static struct delays delays;
static int reader_count, started, playing, closed, sample_count, first_port, epoll;
static const char *mode, *url;
static struct sockaddr_in server;

static void die(const char* what) {
  fprintf(stderr, "rtsp_readers: %s: %s\n", what, strerror(errno));
  exit(1);
}

static int64_t monotonic_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static void request(struct reader* reader, const char* method, const char* target,
                    const char* headers) {
  char text[2048], session[192] = "";
  if (reader->session[0]) snprintf(session, sizeof(session), "Session: %s\r\n", reader->session);
  const int length =
      snprintf(text, sizeof(text), "%s %s RTSP/1.0\r\nCSeq: %d\r\nUser-Agent: bench\r\n%s%s\r\n",
               method, target, ++reader->cseq, session, headers);
  if (send(reader->fd, text, (size_t)length, MSG_NOSIGNAL) != length) die(method);
}

static void play_now(struct reader* reader) {
  reader->step = kPlaying;
  free(reader->reply);
  reader->reply = NULL;
  playing++;
}

// The next connection, as long as not too many are being set up.
static void start_more(void) {
  while (started < reader_count && started - playing < kAtOnce) {
    struct reader* reader = &readers[started++];
    const int on = 1;
    reader->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (reader->fd < 0) die("socket");
    if (connect(reader->fd, (struct sockaddr*)&server, sizeof(server)) < 0) die("connect");
    setsockopt(reader->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = reader};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, reader->fd, &event) < 0) die("epoll");
    if (strcmp(mode, "raw") == 0) {
      play_now(reader);
      continue;
    }
    reader->reply = calloc(1, kReplyBytes);
    reader->step = kOptions;
    request(reader, "OPTIONS", url, "");
  }
}

static const char* header(const char* reply, const char* name) {
  const size_t length = strlen(name);
  for (const char* line = strstr(reply, "\r\n"); line != NULL; line = strstr(line + 2, "\r\n")) {
    if (strncasecmp(line + 2, name, length) != 0 || line[2 + length] != ':') continue;
    return line + 2 + length + 1 + strspn(line + 2 + length + 1, " ");
  }
  return NULL;
}

// The track's URL: a=control after the m= line, under Content-Base unless it is absolute.
static void find_control(struct reader* reader) {
  const char* base = header(reader->reply, "Content-Base");
  const char* media = strstr(reader->reply, "\nm=");
  const char* control = media ? strstr(media, "a=control:") : NULL;
  if (control == NULL) die("DESCRIBE without a=control");
  control += strlen("a=control:");
  const int length = (int)strcspn(control, "\r\n"),
            base_length = base ? (int)strcspn(base, "\r\n") : 0;
  if (strncmp(control, "rtsp://", 7) == 0) {
    snprintf(reader->control, sizeof(reader->control), "%.*s", length, control);
  } else if (base != NULL) {
    snprintf(reader->control, sizeof(reader->control), "%.*s%.*s", base_length, base, length,
             control);
  } else {
    snprintf(reader->control, sizeof(reader->control), "%s/%.*s", url, length, control);
  }
}

static void next_step(struct reader* reader) {
  char transport[256];
  const int port = first_port + 2 * reader->index;
  const char* session = header(reader->reply, "Session");
  if (session != NULL)
    snprintf(reader->session, sizeof(reader->session), "%.*s", (int)strcspn(session, ";\r"),
             session);
  switch (reader->step) {
    case kOptions:
      reader->step = kDescribe;
      request(reader, "DESCRIBE", url, "Accept: application/sdp\r\n");
      return;
    case kDescribe:
      find_control(reader);
      if (strcmp(mode, "udp") == 0)
        snprintf(transport, sizeof(transport), "Transport: RTP/AVP;unicast;client_port=%d-%d\r\n",
                 port, port + 1);
      else
        snprintf(transport, sizeof(transport),
                 "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n");
      reader->step = kSetup;
      request(reader, "SETUP", reader->control, transport);
      return;
    case kSetup:
      reader->step = kPlay;
      request(reader, "PLAY", url, "Range: npt=0.000-\r\n");
      return;
    default:
      play_now(reader);
  }
}

// Takes bytes of a handshake; returns how many, the rest being media already.
static int take_reply(struct reader* reader, const uint8_t* bytes, int length) {
  int used = 0;
  while (used < length && reader->step != kPlaying) {
    if (reader->reply_have == kReplyBytes - 1) die("a reply that does not end");
    reader->reply[reader->reply_have++] = (char)bytes[used++];
    reader->reply[reader->reply_have] = 0;
    const char* end = strstr(reader->reply, "\r\n\r\n");
    if (end == NULL) continue;
    const char* body = header(reader->reply, "Content-Length");
    if (reader->reply_have < end + 4 - reader->reply + (body ? atoi(body) : 0)) continue;
    if (atoi(reader->reply + 9) != 200) {
      fprintf(stderr, "rtsp_readers: reader %d, step %d, was refused:\n%s\n", reader->index,
              reader->step, reader->reply);
      exit(1);
    }
    next_step(reader);
    reader->reply_have = 0;
  }
  return used;
}

static void readable(struct reader* reader) {
  static uint8_t bytes[kReadBytes];
  const ssize_t got = recv(reader->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
  if (got < 0 && errno == EAGAIN) return;
  if (got <= 0) {
    if (reader->step != kPlaying) die("the server closed the connection");
    epoll_ctl(epoll, EPOLL_CTL_DEL, reader->fd, NULL);
    reader->session[0] = 0;  // nothing to keep alive
    closed++;
    return;
  }
  const int used = reader->step == kPlaying ? 0 : take_reply(reader, bytes, (int)got);
  if (strcmp(mode, "udp") != 0)
    interleaved_count(&reader->counter, bytes + used, (int)got - used, &delays);
}

static void print_counts(void) {
  uint64_t packets = 0, garbage = 0, least = UINT64_MAX, most = 0;
  for (int i = 0; i < reader_count; i++) {
    const uint64_t here = readers[i].counter.packets;
    packets += here;
    garbage += readers[i].counter.garbage;
    if (here < least) least = here;
    if (here > most) most = here;
  }
  printf(
      "{\"packets\":%llu,\"skbs\":0,\"least\":%llu,\"most\":%llu,\"garbage\":%llu,\"closed\":%d,",
      (unsigned long long)packets, (unsigned long long)least, (unsigned long long)most,
      (unsigned long long)garbage, closed);
  samples_print(samples, sample_count, &delays);
  printf("}\n");
  fflush(stdout);
}

// Returns 0 when stdin has ended.
static int command(void) {
  char line[64];
  if (fgets(line, sizeof(line), stdin) == NULL) return 0;
  if (strncmp(line, "reset", 5) != 0) {
    print_counts();
    return 1;
  }
  delays.count = 0;
  for (int i = 0; i < sample_count; i++) sample_reset(&samples[i]);
  printf("{}\n");
  fflush(stdout);
  return 1;
}

static void keep_alive(void) {
  for (int i = 0; i < reader_count; i++)
    if (readers[i].step == kPlaying && readers[i].session[0])
      request(&readers[i], "OPTIONS", url, "");
}

static void serve(void) {
  struct epoll_event events[256];
  const int64_t begun = monotonic_ms();
  int64_t kept_alive = begun;
  int announced = 0;
  for (;;) {
    start_more();
    if (playing == reader_count && !announced) {
      announced = 1;
      printf("{\"ready\":\"%s\",\"setupMs\":%lld}\n", mode, (long long)(monotonic_ms() - begun));
      fflush(stdout);
    }
    const int ready = epoll_wait(epoll, events, 256, 1000);
    if (ready < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < ready; i++) {
      if (events[i].data.ptr != NULL)
        readable(events[i].data.ptr);
      else if (!command())
        return;
    }
    if (monotonic_ms() - kept_alive < kKeepAliveMs) continue;
    kept_alive = monotonic_ms();
    keep_alive();
  }
}

int main(int argc, char** argv) {
  struct rlimit files;
  if (argc < 5 || rtsp_address(argv[2], &server) < 0) {
    fprintf(stderr, "usage: rtsp_readers udp|tcp|raw URL READERS FIRST_PORT [SAMPLE...]\n");
    return 2;
  }
  mode = argv[1];
  url = argv[2];
  reader_count = atoi(argv[3]);
  first_port = atoi(argv[4]);
  if (reader_count < 1 || reader_count > kMaxReaders) die("readers");
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  setvbuf(stdin, NULL, _IONBF, 0);
  for (int i = 0; i < reader_count; i++) readers[i].index = i;
  for (int i = 5; i < argc && sample_count < kMaxSamples; i++) {
    sample_reset(&samples[sample_count]);
    readers[atoi(argv[i]) % reader_count].counter.sample = &samples[sample_count++];
  }
  epoll = epoll_create1(0);
  struct epoll_event input = {.events = EPOLLIN, .data.ptr = NULL};
  if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &input) < 0) die("epoll");
  serve();
  return 0;
}
