// What may be plugged into a wire of the `mem` link (an endpoint of a runtime, a mirror), the lines that
// end there, and the switch's table of who has which address.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "ip/ip_address.h"
#include "links/impairment.h"
#include "links/link.h"

namespace apo {

class MemTable;

// Whose packets a plug is given, and who counts what the line does to them: the sender.
struct MemSender {
  static constexpr uint32_t kOutside = 0;  // `MemWire::inject`: over no line

  uint32_t number = kOutside;
  LinkCounters* counters = nullptr;

  void count(LinkCounter counter) const {
    if (counters != nullptr) counters->add(counter);
  }
  void count(const ImpairmentDecision& decision) const;
};

// A packet that a mirror sends back, to be changed on the way.
struct MemReflection {
  OutgoingPacket* packet = nullptr;
  uint64_t at_us = 0;  // when it left the mirror
  uint32_t corrupt_bit = ImpairmentDecision::kNoBit;
  bool is_copy = false;
};

// The lines from all senders to one plug, each with its own impairment.
class MemLines {
 public:
  explicit MemLines(uint32_t to) : to_(to) {}

  // False: all of them are copper.
  [[nodiscard]] bool active() const { return active_; }
  [[nodiscard]] Impairment& from(uint32_t number);
  void change(const ImpairmentSettings& settings);
  void forget(uint32_t number) { lines_.erase(number); }

 private:
  const uint32_t to_;
  bool active_ = false;
  ImpairmentSettings settings_;
  std::unordered_map<uint32_t, Impairment> lines_;  // of those plugged in: bounded with them
};

class MemPlug {
 public:
  MemPlug(uint32_t number, size_t mtu) : number_(number), plug_mtu_(mtu), lines_(number) {}
  MemPlug(const MemPlug&) = delete;
  MemPlug& operator=(const MemPlug&) = delete;
  virtual ~MemPlug() = default;

  // From 1, and no number twice: with the seed it makes the impairment of each line.
  [[nodiscard]] uint32_t number() const { return number_; }

  [[nodiscard]] virtual bool is_mirror() const { return false; }

  // Takes packets that all go to this plug, at most Link::kBatch; their results say which. Called by
  // the sender's thread, as is the next.
  virtual void deliver(const MemSender& sender, const MemTable& table,
                       std::span<OutgoingPacket* const> packets) = 0;
  // The same for packets that the mirror with that number sends back. False: not with this one.
  [[nodiscard]] virtual bool reflect(const MemSender& /*sender*/, uint32_t /*mirror*/,
                                     std::span<const MemReflection> /*packets*/) {
    return false;
  }

  void impair(const ImpairmentSettings& settings);
  // The plug with that number has gone.
  void forget(uint32_t number);
  // When it returns, nothing more is taken, and nobody's doorbell rung.
  virtual void unplug();

 protected:
  // Longer than the wire takes: a packet, or the segments of a super-packet.
  [[nodiscard]] bool is_too_big(const OutgoingPacket& packet) const;

  const uint32_t number_;
  const size_t plug_mtu_;
  std::mutex producers_;  // senders take turns by it; guards the two below
  MemLines lines_;
  bool plugged_ = true;
};

// Who has an address: exact ones first, then the longest prefix.
class MemTable {
 public:
  // Null: nobody.
  [[nodiscard]] MemPlug* find(uint8_t version, const uint8_t* address) const;
  // False: somebody has one of them already, `taken`.
  [[nodiscard]] bool add(const AddressSet& addresses, const std::shared_ptr<MemPlug>& plug,
                         IpAddress* taken);
  void remove(const MemPlug& plug);
  // Everybody, each as often as once.
  [[nodiscard]] std::span<const std::shared_ptr<MemPlug>> all() const { return all_; }

 private:
  struct Hash {
    size_t operator()(const IpAddress& address) const;
  };
  using Plugs = std::unordered_map<IpAddress, std::shared_ptr<MemPlug>, Hash>;
  // The prefixes of one length, by their first address.
  struct Prefixes {
    uint8_t version = 4;
    uint8_t bits = 0;
    Plugs plugs;
  };
  [[nodiscard]] Plugs& prefixes(uint8_t version, uint8_t bits);

  std::vector<std::shared_ptr<MemPlug>> all_;
  Plugs exact_;
  std::vector<Prefixes> prefixes_;  // the longest first
};

// The destination's bytes in an IP packet, 4 or 16; empty: it is none.
[[nodiscard]] std::span<const uint8_t> mem_destination(std::span<const uint8_t> packet);
[[nodiscard]] std::span<const uint8_t> mem_source(std::span<const uint8_t> packet);

}  // namespace apo
