// The kinds of link and how each is opened: the one list that a new link is added to.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "ip/group_membership.h"
#include "ip/ip_address.h"
#include "links/link.h"

namespace apo {

// What a link is opened with: the user's options, checked for meaning in TypeScript and for safety
// in the link.
class LinkSettings {
 public:
  using Value = std::variant<double, bool, std::string>;

  AddressSet addresses;       // our own
  std::vector<Route> routes;  // to what is not on the link

  void set(std::string name, Value value) {
    values_.insert_or_assign(std::move(name), std::move(value));
  }
  // The named value when it was given and is of that type.
  [[nodiscard]] std::optional<double> number(std::string_view name) const {
    return get<double>(name);
  }
  [[nodiscard]] std::optional<std::string> text(std::string_view name) const {
    return get<std::string>(name);
  }
  [[nodiscard]] bool flag(std::string_view name, bool otherwise = false) const {
    return get<bool>(name).value_or(otherwise);
  }
  // A whole number from `low` to `high`, or `otherwise`.
  [[nodiscard]] int64_t integer(std::string_view name, int64_t low, int64_t high,
                                int64_t otherwise) const {
    const std::optional<double> value = number(name);
    if (!value || !(*value >= static_cast<double>(low) && *value <= static_cast<double>(high))) {
      return otherwise;
    }
    return static_cast<int64_t>(*value);
  }

 private:
  template <typename T>
  [[nodiscard]] std::optional<T> get(std::string_view name) const {
    const auto found = values_.find(name);
    if (found == values_.end() || !std::holds_alternative<T>(found->second)) return std::nullopt;
    return std::get<T>(found->second);
  }

  std::map<std::string, Value, std::less<>> values_;
};

// What opening gave: one Link a queue, or why not.
struct OpenedLink {
  std::vector<std::shared_ptr<Link>> queues;
  AddressSet addresses;  // our own: those of the settings, or what a link that shares them found
  std::string device;    // the interface's name, where there is one
  // What workers have joined; made when the link is open.
  std::shared_ptr<GroupMembership> groups{};
  int error = 0;     // errno of the step that failed
  std::string step;  // which: "open /dev/net/tun", "TUNSETIFF", "bpf(BPF_PROG_LOAD)"

  static OpenedLink failed(int error, std::string step) {
    OpenedLink link;
    link.error = error;
    link.step = std::move(step);
    return link;
  }
};

// `kind` is "mem", "fd", "tun", "packet" or "xdp"; another fails with EINVAL.
[[nodiscard]] OpenedLink open_link(std::string_view kind, const LinkSettings& settings);

}  // namespace apo
