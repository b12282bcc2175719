// An IPv4 or IPv6 address with a port, in the form that the socket calls take.
//
// IPv4-mapped IPv6 addresses are kept as IPv4, so that one peer has one spelling.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace apo {

class IpEndpoint {
 public:
  IpEndpoint() { v4_ = {}; }

  // `text` is an IPv4 or IPv6 literal (a zone such as %eth0 is taken); nothing is looked up.
  static std::optional<IpEndpoint> parse(const std::string& text, uint16_t port);
  // From what recvmsg filled in; nullopt when the family or the length is not ours.
  static std::optional<IpEndpoint> from(const sockaddr_storage& storage, socklen_t length);

  [[nodiscard]] bool is_v6() const { return v4_.sin_family == AF_INET6; }
  [[nodiscard]] uint16_t port() const { return ntohs(is_v6() ? v6_.sin6_port : v4_.sin_port); }
  void set_port(uint16_t port) { (is_v6() ? v6_.sin6_port : v4_.sin_port) = htons(port); }
  [[nodiscard]] bool is_unspecified() const;
  [[nodiscard]] std::string address() const;

  [[nodiscard]] const sockaddr* raw() const { return reinterpret_cast<const sockaddr*>(&v4_); }
  [[nodiscard]] socklen_t raw_length() const { return is_v6() ? sizeof(v6_) : sizeof(v4_); }

  friend bool operator==(const IpEndpoint& a, const IpEndpoint& b);
  [[nodiscard]] size_t hash() const;

 private:
  union {
    sockaddr_in v4_;
    sockaddr_in6 v6_ = {};
  };
};

bool operator==(const IpEndpoint& a, const IpEndpoint& b);

}  // namespace apo
