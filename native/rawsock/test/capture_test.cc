// The capture: golden bytes of every block, checksums that are completed in the copy alone, a buffer
// that fills up, a file that may not grow any more, and several threads at once.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <thread>

#include "capture/packet_capture.h"
#include "capture/packet_repairs.h"
#include "check.h"
#include "packet_builder.h"

namespace {

using namespace apo;
using namespace apo::test;

uint32_t word(const Bytes& bytes, size_t at) {
  CHECK(at + 4 <= bytes.size());
  return bytes[at] | bytes[at + 1] << 8 | bytes[at + 2] << 16 |
         static_cast<uint32_t>(bytes[at + 3]) << 24;
}

// A block as a reader sees it.
struct Block {
  uint32_t type = 0;
  Bytes bytes;

  [[nodiscard]] Bytes packet() const {
    const size_t captured = word(bytes, 20);
    CHECK(28 + captured <= bytes.size());
    return {bytes.begin() + 28, bytes.begin() + 28 + static_cast<ptrdiff_t>(captured)};
  }
  [[nodiscard]] std::string text() const { return {bytes.begin(), bytes.end()}; }
};

std::vector<Block> blocks_of(const Bytes& file) {
  std::vector<Block> blocks;
  for (size_t at = 0; at < file.size();) {
    const uint32_t length = word(file, at + 4);
    CHECK(length >= 12 && length % 4 == 0 && length <= file.size() - at);
    CHECK(word(file, at + length - 4) == length);
    const auto begin = file.begin() + static_cast<ptrdiff_t>(at);
    blocks.push_back({word(file, at), Bytes(begin, begin + length)});
    at += length;
  }
  return blocks;
}

Bytes contents(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  CHECK(file);
  Bytes all;
  uint8_t piece[65'536];
  for (ssize_t n; (n = ::read(file.get(), piece, sizeof piece)) > 0;)
    all.insert(all.end(), piece, piece + n);
  return all;
}

// A folder that vanishes with the test.
struct Folder {
  Folder() : path(std::filesystem::temp_directory_path() / "apo-capture-XXXXXX") {
    CHECK(mkdtemp(path.data()) != nullptr);
  }
  ~Folder() { std::filesystem::remove_all(path); }
  [[nodiscard]] std::string file(const char* name) const { return path + "/" + name; }
  std::string path;
};

std::shared_ptr<PacketCapture> opened(const std::string& path, const CaptureOptions& options = {}) {
  int error = -1;
  auto capture = PacketCapture::open(path, options, error);
  CHECK(capture && error == 0);
  return capture;
}

void golden_bytes() {
  uint8_t header[pcapng::kFileHeaderBytesMax];
  const size_t header_bytes = pcapng::write_file_header(header, 65'535);
  const Bytes expected = {
      0x0a, 0x0d, 0x0d, 0x0a, 40,   0,    0,    0,     // section header block, 40 bytes
      0x4d, 0x3c, 0x2b, 0x1a, 1,    0,    0,    0,     // magic, version 1.0
      0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,  // length not known
      4,    0,    3,    0,    'a',  'p',  'o',  0,     // shb_userappl
      0,    0,    0,    0,    40,   0,    0,    0,     // end of options, length
      1,    0,    0,    0,    32,   0,    0,    0,     // interface description block, 32 bytes
      101,  0,    0,    0,    0xff, 0xff, 0,    0,     // LINKTYPE_RAW, snap length
      9,    0,    1,    0,    6,    0,    0,    0,     // if_tsresol: 10^-6
      0,    0,    0,    0,    32,   0,    0,    0,
  };
  CHECK(Bytes(header, header + header_bytes) == expected);

  const Bytes bytes = {0x45, 1, 2, 3, 4};
  pcapng::Packet packet;
  packet.time_us = 0x0006'1234'5678'9abc;
  packet.captured = bytes;
  packet.original_bytes = 300;
  packet.direction = pcapng::Direction::kOutbound;
  packet.comment = "tx.x";
  Bytes block(pcapng::packet_block_bytes(packet), 0xee);
  pcapng::write_packet_block(block.data(), packet);
  CHECK(
      (block == Bytes{6,    0,    0,    0, 60,   0,    0,    0,  // enhanced packet block, 60 bytes
                      0,    0,    0,    0,                       // interface 0
                      0x34, 0x12, 0x06, 0, 0xbc, 0x9a, 0x78, 0x56,  // time, high word first
                      5,    0,    0,    0, 0x2c, 1,    0,    0,     // captured, original
                      0x45, 1,    2,    3, 4,    0,    0,    0,     // padded
                      2,    0,    4,    0, 2,    0,    0,    0,     // epb_flags: outbound
                      1,    0,    4,    0, 't',  'x',  '.',  'x',   // opt_comment
                      0,    0,    0,    0, 60,   0,    0,    0}));
  packet.comment = {};
  CHECK(pcapng::packet_block_bytes(packet) == 52);

  uint8_t end[pcapng::kStatisticsBytesMax];
  pcapng::Statistics statistics{.start_us = 1,
                                .end_us = 0x2'0000'0003,
                                .seen = 9,
                                .written = 7,
                                .missed = 2,
                                .comment = "no"};
  const size_t end_bytes = pcapng::write_statistics(end, statistics);
  CHECK((Bytes(end, end + end_bytes) ==
         Bytes{5, 0, 0, 0, 96,  0,   0, 0,              // interface statistics block, 96 bytes
               0, 0, 0, 0, 2,   0,   0, 0, 3, 0, 0, 0,  // interface 0, time
               2, 0, 8, 0, 0,   0,   0, 0, 1, 0, 0, 0,  // isb_starttime
               3, 0, 8, 0, 2,   0,   0, 0, 3, 0, 0, 0,  // isb_endtime
               4, 0, 8, 0, 9,   0,   0, 0, 0, 0, 0, 0,  // isb_ifrecv
               5, 0, 8, 0, 2,   0,   0, 0, 0, 0, 0, 0,  // isb_ifdrop
               8, 0, 8, 0, 7,   0,   0, 0, 0, 0, 0, 0,  // isb_usrdeliv
               1, 0, 2, 0, 'n', 'o', 0, 0,              // opt_comment
               0, 0, 0, 0, 96,  0,   0, 0}));
  const std::string long_comment(5000, 'x');
  statistics.comment = long_comment;
  CHECK(pcapng::write_statistics(end, statistics) <= sizeof end);
}

// The packet as it would look on a wire: `repaired` gets what the capture writes.
Bytes repaired(Bytes packet, const Offload& offload) {
  const PacketRepairs repairs = packet_repairs(packet, offload);
  for (size_t i = 0; i < repairs.count; ++i) {
    wire::store16(&packet.at(repairs.list[i].offset), repairs.list[i].value);
  }
  return packet;
}

Bytes tcp(bool six, const Bytes& payload) {
  Bytes upper(20);
  wire::store32(&upper[0], 1000 << 16 | 80);
  upper[12] = 0x50;
  upper[13] = 0x10;
  upper = with_checksum(concat(upper, payload), 16, six, 6);
  return six ? ipv6(6, upper) : ipv4(6, upper);
}

void partial_checksums_are_completed() {
  const Offload partial{ChecksumState::kPartial, GsoKind::kNone, 0};
  for (const bool six : {false, true}) {
    const size_t header = six ? 40 : 20;
    for (const size_t length : {0u, 1u, 2u, 63u, 1400u}) {
      const Bytes payload(length, 0xa5);
      const Bytes whole_udp = udp(six, 1000, 7, payload);
      const Bytes whole_tcp = tcp(six, payload);
      for (const auto& [whole, field] :
           {std::pair{whole_udp, header + 6}, std::pair{whole_tcp, header + 16}}) {
        Bytes sent = whole;
        // The pseudo header's sum, or anything: the field does not count.
        wire::store16(&sent[field], 0x1234);
        CHECK(repaired(sent, partial) == whole);
        CHECK(repaired(sent, {}) == sent);
        CHECK(repaired(sent, {ChecksumState::kVerified, GsoKind::kNone, 0}) == sent);
      }
    }
  }
}

void super_packets_get_lengths_and_checksums() {
  for (const bool six : {false, true}) {
    const size_t header = six ? 40 : 20;
    const Bytes payload(60'000, 7);
    const Bytes whole = udp(six, 1000, 7, payload);
    Bytes sent = whole;
    wire::store16(&sent[six ? 4 : 2], 0);  // the IP length does not say
    if (!six) {                            // and the header's checksum agrees with that
      wire::store16(&sent[10], 0);
      wire::store16(&sent[10], slow_checksum({sent.begin(), sent.begin() + 20}));
    }
    wire::store16(&sent[header + 4], 1408);  // the UDP length of one segment
    wire::store16(&sent[header + 6], 0xffff);
    CHECK(repaired(sent, {ChecksumState::kPartial, GsoKind::kUdp, 1400}) == whole);
    const Bytes segments = tcp(six, payload);
    sent = segments;
    wire::store16(&sent[header + 16], 1);
    CHECK(repaired(sent, {ChecksumState::kPartial, six ? GsoKind::kTcp6 : GsoKind::kTcp4, 1400}) ==
          segments);
    // Longer than any IP length: left as it is but for nothing that could be wrong.
    Bytes jumbo = sent;
    jumbo.resize(80'000);
    wire::store16(&jumbo[six ? 4 : 2], 0);
    CHECK(repaired(jumbo, {ChecksumState::kPartial, GsoKind::kTcp4, 1400}) == jumbo);
  }
}

void nonsense_is_left_alone() {
  const Offload offload{ChecksumState::kPartial, GsoKind::kUdp, 1400};
  uint32_t state = 1;
  for (int round = 0; round < 20'000; ++round) {
    Bytes packet(state % 120);
    for (uint8_t& byte : packet)
      byte = static_cast<uint8_t>((state = state * 1664525 + 1013904223) >> 24);
    if (!packet.empty()) packet[0] = round % 2 != 0 ? 0x45 : 0x60;
    state = state * 1664525 + 1013904223;
    (void)repaired(packet, offload);  // `at` and the sanitizer watch the bounds
  }
}

void a_file_reads_back() {
  const Folder folder;
  const std::string path = folder.file("a.pcapng");
  auto capture = opened(path, {.snap_bytes = 100});
  const Bytes hello = udp(false, 1, 2, {'h', 'i'});
  Bytes partial = udp(true, 1, 2, Bytes(500, 9));
  const Bytes whole = partial;
  wire::store16(&partial[46], 0x77);
  const Bytes before = partial;
  capture->record(CaptureDirection::kInbound, hello, {}, PacketCapture::kNoReason, 1'000'000);
  capture->record(CaptureDirection::kInbound, hello, {}, LinkCounter::kRxDroppedLand, 1'000'001);
  capture->record(CaptureDirection::kOutbound, partial,
                  {ChecksumState::kPartial, GsoKind::kNone, 0}, PacketCapture::kNoReason,
                  1'000'002);
  CHECK(partial == before);
  CHECK(capture->close() == 0 && capture->close() == 0);
  capture->record(CaptureDirection::kInbound, hello, {}, PacketCapture::kNoReason, 5);
  const CaptureStatus status = capture->status();
  CHECK(status.packets == 3 && status.missed == 1 && status.error == 0);

  const Bytes file = contents(path);
  CHECK(status.bytes == file.size());
  const std::vector<Block> blocks = blocks_of(file);
  CHECK(blocks.size() == 6);
  CHECK(blocks[2].type == 6 && blocks[2].packet() == hello);
  CHECK(blocks[2].text().find("rx.") == std::string::npos);
  CHECK(blocks[3].packet() == hello);
  CHECK(blocks[3].text().find("rx.dropped.land") != std::string::npos);
  CHECK(blocks[4].packet() == Bytes(whole.begin(), whole.begin() + 100));
  CHECK(word(blocks[4].bytes, 24) == whole.size());
  CHECK(word(blocks[3].bytes, 16) - word(blocks[2].bytes, 16) == 1);
  CHECK(blocks[5].type == 5);
  struct stat facts {};
  CHECK(::stat(path.c_str(), &facts) == 0 && (facts.st_mode & 0777) == 0600);
}

void opening_fails_with_an_errno() {
  const Folder folder;
  int error = 0;
  CHECK(!PacketCapture::open(folder.file("none/a.pcapng"), {}, error) && error == ENOENT);
  CHECK(!PacketCapture::open(folder.path, {}, error) && error == EISDIR);
  CHECK(!PacketCapture::open("/dev/full", {}, error) && error == ENOSPC);
  CHECK(::mkfifo(folder.file("fifo").c_str(), 0600) == 0);
  CHECK(!PacketCapture::open(folder.file("fifo"), {}, error) && error == ENXIO);
  CHECK(!PacketCapture::open(folder.file("a.pcapng"), {.snap_bytes = 0}, error) && error == EINVAL);
}

// A FIFO that nobody reads from is a disk that stands still.
void what_does_not_fit_is_missed_and_counted() {
  const Folder folder;
  const std::string path = folder.file("fifo");
  CHECK(::mkfifo(path.c_str(), 0600) == 0);
  const UniqueFd reader(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  CHECK(reader);
  auto capture = opened(path, {.buffer_bytes = CaptureOptions::kBufferBytesMin});
  const Bytes packet = udp(false, 1, 2, Bytes(1000, 1));
  constexpr uint64_t kPackets = 1000;
  for (uint64_t i = 0; i < kPackets; ++i) {
    capture->record(CaptureDirection::kInbound, packet, {}, PacketCapture::kNoReason, i);
  }
  CHECK(capture->status().missed > 0);
  Bytes file;
  std::thread slow([&] {
    CHECK(::fcntl(reader.get(), F_SETFL, 0) == 0);
    uint8_t piece[4096];
    for (ssize_t n; (n = ::read(reader.get(), piece, sizeof piece)) > 0;)
      file.insert(file.end(), piece, piece + n);
  });
  CHECK(capture->close() == 0);
  slow.join();
  const CaptureStatus status = capture->status();
  CHECK(status.packets + status.missed == kPackets && status.packets > 0);
  const std::vector<Block> blocks = blocks_of(file);
  CHECK(blocks.size() == 3 + status.packets && blocks.back().type == 5);
  CHECK(blocks.back().text().find(std::to_string(status.missed) + " packets are missing") !=
        std::string::npos);
}

void a_full_disk_ends_the_capture_and_leaves_a_readable_file() {
  const Folder folder;
  const std::string path = folder.file("a.pcapng");
  rlimit before{};
  CHECK(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  constexpr size_t kLimit = 50'000;
  const rlimit small{kLimit, before.rlim_max};
  CHECK(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  auto capture = opened(path);
  const Bytes packet = udp(false, 1, 2, Bytes(1000, 1));
  for (uint64_t i = 0; i < 100; ++i) {
    capture->record(CaptureDirection::kInbound, packet, {}, PacketCapture::kNoReason, i);
  }
  CHECK(capture->close() == EFBIG);
  CHECK(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  const CaptureStatus status = capture->status();
  const Bytes file = contents(path);
  CHECK(file.size() <= kLimit && file.size() == status.bytes);
  const std::vector<Block> blocks = blocks_of(file);
  CHECK(status.packets > 40 && status.packets + status.missed == 100 && status.error == EFBIG);
  const auto packets = std::count_if(blocks.begin(), blocks.end(),
                                     [](const Block& block) { return block.type == 6; });
  CHECK(static_cast<uint64_t>(packets) == status.packets);
}

void a_reader_that_goes_ends_the_capture() {
  const Folder folder;
  const std::string path = folder.file("fifo");
  CHECK(::mkfifo(path.c_str(), 0600) == 0);
  UniqueFd reader(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  auto capture = opened(path);
  reader.reset();
  const Bytes packet = udp(false, 1, 2, {});
  capture->record(CaptureDirection::kInbound, packet, {}, PacketCapture::kNoReason, 1);
  CHECK(capture->close() == EPIPE);
  CHECK(capture->status().packets == 0 && capture->status().missed == 1);
}

void several_threads_record_at_once() {
  const Folder folder;
  const std::string path = folder.file("a.pcapng");
  auto capture = opened(path);
  constexpr uint64_t kEach = 20'000;
  std::vector<std::thread> threads;
  for (uint16_t port = 1; port <= 3; ++port) {
    threads.emplace_back([&capture, port] {
      for (uint64_t i = 0; i < kEach; ++i) {
        const Bytes packet = udp(false, port, 2, Bytes(i % 50, static_cast<uint8_t>(i)));
        capture->record(CaptureDirection::kInbound, packet, {}, LinkCounter::kRxDroppedUnopened, i);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(capture->close() == 0);
  const CaptureStatus status = capture->status();
  CHECK(status.packets + status.missed == 3 * kEach && status.packets > 0);
  uint64_t found = 0;
  for (const Block& block : blocks_of(contents(path))) {
    if (block.type != 6) continue;
    const Bytes packet = block.packet();
    ++found;
    CHECK(slow_checksum({packet.begin(), packet.begin() + 20}) == 0);
  }
  CHECK(found == status.packets);
}

}  // namespace

int main() {
  // As Node does.
  ::signal(SIGPIPE, SIG_IGN);
  golden_bytes();
  partial_checksums_are_completed();
  super_packets_get_lengths_and_checksums();
  nonsense_is_left_alone();
  a_file_reads_back();
  opening_fails_with_an_errno();
  what_does_not_fit_is_missed_and_counted();
  a_full_disk_ends_the_capture_and_leaves_a_readable_file();
  a_reader_that_goes_ends_the_capture();
  several_threads_record_at_once();
  return 0;
}
