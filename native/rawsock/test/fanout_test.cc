// The engine under two threads: receivers come, move and go while packets flow in by socket and by
// push. For the address and thread sanitizers above all; what arrives is checked as well.
#include <arpa/inet.h>
#include <poll.h>

#include <cstring>
#include <set>
#include <vector>

#include "check.h"
#include "fanout/fanout_engine.h"
#include "fanout/fanout_time.h"

namespace {

struct Sink {
  apo::UdpSocket socket;
  apo::ReceiveBatch batch;
  std::vector<uint16_t> seqs;

  Sink() { CHECK(socket.open(*apo::IpEndpoint::parse("127.0.0.1", 0), {}) == 0); }
  void drain(int wait_ms) {
    pollfd entry = {.fd = socket.fd(), .events = POLLIN, .revents = 0};
    while (::poll(&entry, 1, wait_ms) > 0) {
      const int count = batch.receive(socket.fd());
      for (int i = 0; i < count; i++) {
        apo::ReceiveBatch::Message message;
        CHECK(batch.message(static_cast<size_t>(i), message));
        for (size_t at = 0; at < message.bytes.size(); at += message.segment_bytes) {
          seqs.push_back(apo::load_be16(message.bytes.data() + at + 2));
        }
      }
    }
  }
};

std::vector<uint8_t> packet(uint16_t seq, uint32_t time, bool marker, bool key) {
  std::vector<uint8_t> out(700, 0);
  out[0] = 0x80;
  out[1] = static_cast<uint8_t>((marker ? 0x80 : 0) | 96);
  apo::store_be16(out.data() + 2, seq);
  apo::store_be32(out.data() + 4, time);
  out[12] = key ? 0x65 : 0x41;
  return out;
}

// Frames to so many receivers that helpers join in: every packet goes to each receiver once.
void long_sweeps() {
  apo::FanoutEngine engine({.helpers = 3}, [] {});
  CHECK(engine.start() == 0);
  uint32_t socket = 0;
  uint16_t port = 0;
  CHECK(engine.open_socket(apo::IpEndpoint::parse("127.0.0.1", 0), 0, socket, port) == 0);
  const uint32_t track = engine.open_track(
      {.payload_type = 96, .key_frames = apo::KeyFrames::kAny, .clock_rate = 90000}, 0);
  Sink sink;
  std::vector<uint32_t> receivers;
  for (int i = 0; i < 300; i++) {
    apo::ReceiverOptions options;
    options.socket = socket;
    options.rtp = sink.socket.local();
    options.from_key = false;
    receivers.push_back(engine.add_receiver(track, options)->id);
    engine.start_receiver(receivers.back());
  }
  constexpr uint64_t kFrames = 40;
  constexpr uint64_t kPackets = 16;
  for (uint64_t i = 0; i < kFrames; i++) {
    std::vector<uint8_t> bytes;
    std::vector<uint32_t> offsets;
    for (uint64_t n = 0; n < kPackets; n++) {
      const auto one =
          packet(static_cast<uint16_t>(i * kPackets + n), static_cast<uint32_t>(i), n == 15, false);
      offsets.push_back(static_cast<uint32_t>(bytes.size()));
      offsets.push_back(static_cast<uint32_t>(one.size()));
      bytes.insert(bytes.end(), one.begin(), one.end());
    }
    engine.push(track, bytes, offsets);
    sink.drain(0);
  }
  const uint64_t expected = kFrames * kPackets * receivers.size();
  while (engine.send_counters().packets.load() < expected) std::this_thread::yield();
  for (const uint32_t id : receivers)
    CHECK(engine.receiver(id)->packets.load() == kFrames * kPackets);
  CHECK(engine.send_counters().packets.load() == expected);
  CHECK(engine.send_counters().sends.load() == kFrames * receivers.size());
}

}  // namespace

int main() {
  long_sweeps();
  std::atomic<int> wakes{0};
  apo::FanoutEngine engine({.helpers = 2}, [&wakes] { wakes++; });
  CHECK(engine.start() == 0);
  uint32_t socket = 0;
  uint16_t port = 0;
  CHECK(engine.open_socket(apo::IpEndpoint::parse("127.0.0.1", 0), 0, socket, port) == 0);
  const uint32_t track = engine.open_track({.payload_type = 96,
                                            .key_frames = apo::KeyFrames::kH264,
                                            .clock_rate = 90000,
                                            .cache_bytes = 1 << 20},
                                           0);
  Sink steady;
  Sink other;
  const auto options = [&](const Sink& sink, bool from_key) {
    apo::ReceiverOptions made;
    made.socket = socket;
    made.report_socket = socket;
    made.rtp = sink.socket.local();
    made.report_port = sink.socket.local().port();
    made.from_key = from_key;
    return made;
  };
  const auto position = engine.add_receiver(track, options(steady, true));
  CHECK(position && position->seq == -1);
  engine.start_receiver(position->id);
  engine.tap(track, true);

  Sink source;
  engine.add_source(track, socket, source.socket.local());
  std::set<uint32_t> others;
  std::vector<apo::FanoutEvent> events;
  uint16_t seq = 0;
  constexpr int kFrames = 600;
  for (int i = 0; i < kFrames; i++) {
    const bool by_push = i % 2 == 0;
    std::vector<uint8_t> bytes;
    std::vector<uint32_t> offsets;
    for (int n = 0; n < 4; n++) {
      const auto one = packet(seq++, static_cast<uint32_t>(i) * 100, n == 3, i % 50 == 0 && n == 0);
      offsets.push_back(static_cast<uint32_t>(bytes.size()));
      offsets.push_back(static_cast<uint32_t>(one.size()));
      bytes.insert(bytes.end(), one.begin(), one.end());
      if (!by_push) {
        const auto to = *apo::IpEndpoint::parse("127.0.0.1", port);
        CHECK(::sendto(source.socket.fd(), one.data(), one.size(), 0, to.raw(), to.raw_length()) >
              0);
      }
    }
    if (by_push) engine.push(track, bytes, offsets);
    // The two ways in are not ordered with each other: wait for one before the next.
    while (engine.track_head(track)->packets < seq) std::this_thread::yield();
    if (i % 3 == 0) {
      const auto made = engine.add_receiver(track, options(other, i % 2 == 0));
      CHECK(made.has_value());
      engine.start_receiver(made->id);
      others.insert(made->id);
    }
    if (i % 7 == 0 && !others.empty()) {
      engine.move_receiver(*others.begin(), other.socket.local(), 0);
      engine.remove_receiver(*others.begin());
      others.erase(others.begin());
    }
    if (i % 20 == 0) {
      engine.cached(track);
      engine.send_report(track, {.cname = "a test"}, 0);
      events.clear();
      engine.events().take(events, 1 << 20, 256);
    }
    steady.drain(0);
    other.drain(0);
  }
  steady.drain(300);
  size_t reports = 0;
  uint16_t expected = 0;
  for (const uint16_t got : steady.seqs) {
    if (got == expected) {
      expected++;
    } else {
      reports++;  // sender reports arrive on the same port here
    }
  }
  CHECK(expected == seq);
  CHECK(reports > 0 && wakes.load() > 0);
  CHECK(engine.counters().frames.load() == kFrames);
  CHECK(engine.counters().receive_packets.load() == kFrames / 2 * 4);
  engine.close_track(track);
  while (engine.receiver(position->id)) std::this_thread::yield();
  engine.close_socket(socket);
  engine.stop();
  engine.stop();
  return 0;
}
