#include "guard/guard.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace apo {

Guard::Outcome Guard::change(Change change, uint8_t list, std::span<const IpPrefix> prefixes) {
  using Result = PrefixTable::Result;
  const std::lock_guard lock(lists_mutex_);
  Outcome outcome;
  for (const IpPrefix& prefix : prefixes) {
    const Result result =
        change == Change::kAdd ? lists_.add(prefix, list) : lists_.remove(prefix, list);
    if (result != Result::kDone && result != Result::kUnchanged) {
      outcome.result = result;
      break;
    }
    ++outcome.taken;
    outcome.changed += result == Result::kDone;
  }
  return outcome;
}

bool Guard::set_limit(const RateLimit& limit) {
  if (!limit.is_valid()) return false;
  const std::lock_guard lock(settings_mutex_);
  limit_ = limit;
  if (limit.packets_per_second != 0 && !buckets_) buckets_ = std::make_unique<RateTable>(key_);
  settings_version_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

RateLimit Guard::limit() const {
  const std::lock_guard lock(settings_mutex_);
  return limit_;
}

std::vector<Offender> Guard::offenders() const {
  std::vector<std::shared_ptr<OffenderTable>> tables;
  {
    const std::lock_guard lock(settings_mutex_);
    tables = offenders_;
  }
  std::vector<Offender> all;
  for (const auto& table : tables) table->read(all);
  // Records of one address stand together, the latest first.
  std::sort(all.begin(), all.end(), [](const Offender& a, const Offender& b) {
    const auto by_address = std::tie(a.address.version, a.address.bytes);
    const auto other = std::tie(b.address.version, b.address.bytes);
    return by_address != other ? by_address < other : a.last_us > b.last_us;
  });
  std::vector<Offender> merged;
  for (const Offender& one : all) {
    if (merged.empty() || !(merged.back().address == one.address)) {
      merged.push_back(one);
      continue;
    }
    Offender& known = merged.back();
    known.count += one.count;
    if (one.first_us < known.first_us) {
      known.first_us = one.first_us;
      known.distance = one.distance;
      known.byte_count = one.byte_count;
      known.bytes = one.bytes;
    }
  }
  std::sort(merged.begin(), merged.end(), [](const Offender& a, const Offender& b) {
    return std::tie(a.last_us, a.count) > std::tie(b.last_us, b.count);
  });
  return merged;
}

// The table of a view that has gone is kept for readers, and written on by the next view.
std::shared_ptr<OffenderTable> Guard::enter_view() {
  const std::lock_guard lock(settings_mutex_);
  ++views_;
  settings_version_.fetch_add(1, std::memory_order_relaxed);
  if (!unused_offenders_.empty()) {
    auto table = std::move(unused_offenders_.back());
    unused_offenders_.pop_back();
    return table;
  }
  return offenders_.emplace_back(std::make_shared<OffenderTable>(key_));
}

void Guard::leave_view(const std::shared_ptr<OffenderTable>& table) {
  const std::lock_guard lock(settings_mutex_);
  --views_;
  settings_version_.fetch_add(1, std::memory_order_relaxed);
  unused_offenders_.push_back(table);
}

GuardView::GuardView(std::shared_ptr<Guard> guard)
    : guard_(std::move(guard)), offenders_(guard_->enter_view()) {}

GuardView::~GuardView() { guard_->leave_view(offenders_); }

void GuardView::refresh() {
  const std::lock_guard lock(guard_->settings_mutex_);
  settings_seen_ = guard_->settings_version_.load(std::memory_order_relaxed);
  pace_ = RatePace(guard_->limit_);
  buckets_ = guard_->buckets_.get();
  shared_ = guard_->views_ > 1;
}

}  // namespace apo
