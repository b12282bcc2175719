// See ip_endpoint.h.
#include "util/ip_endpoint.h"

#include <arpa/inet.h>
#include <net/if.h>

#include <cstring>

namespace apo {

std::optional<IpEndpoint> IpEndpoint::parse(const std::string& text, uint16_t port) {
  IpEndpoint out;
  if (inet_pton(AF_INET, text.c_str(), &out.v4_.sin_addr) == 1) {
    out.v4_.sin_family = AF_INET;
    out.set_port(port);
    return out;
  }
  std::string bare = text;
  uint32_t scope = 0;
  if (const size_t percent = text.find('%'); percent != std::string::npos) {
    scope = if_nametoindex(text.c_str() + percent + 1);
    if (scope == 0) return std::nullopt;
    bare.resize(percent);
  }
  sockaddr_in6 v6 = {};
  if (inet_pton(AF_INET6, bare.c_str(), &v6.sin6_addr) != 1) return std::nullopt;
  v6.sin6_family = AF_INET6;
  v6.sin6_scope_id = scope;
  v6.sin6_port = htons(port);
  sockaddr_storage storage = {};
  std::memcpy(&storage, &v6, sizeof(v6));
  return from(storage, sizeof(v6));
}

std::optional<IpEndpoint> IpEndpoint::from(const sockaddr_storage& storage, socklen_t length) {
  IpEndpoint out;
  if (storage.ss_family == AF_INET && length >= sizeof(sockaddr_in)) {
    std::memcpy(&out.v4_, &storage, sizeof(sockaddr_in));
    return out;
  }
  if (storage.ss_family != AF_INET6 || length < sizeof(sockaddr_in6)) return std::nullopt;
  sockaddr_in6 v6;
  std::memcpy(&v6, &storage, sizeof(v6));
  if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
    out.v4_.sin_family = AF_INET;
    out.v4_.sin_port = v6.sin6_port;
    std::memcpy(&out.v4_.sin_addr, v6.sin6_addr.s6_addr + 12, 4);
    return out;
  }
  out.v6_ = v6;
  out.v6_.sin6_flowinfo = 0;
  return out;
}

bool IpEndpoint::is_unspecified() const {
  return is_v6() ? IN6_IS_ADDR_UNSPECIFIED(&v6_.sin6_addr) : v4_.sin_addr.s_addr == INADDR_ANY;
}

std::string IpEndpoint::address() const {
  char text[INET6_ADDRSTRLEN] = {};
  const void* bytes = is_v6() ? static_cast<const void*>(&v6_.sin6_addr) : &v4_.sin_addr;
  inet_ntop(is_v6() ? AF_INET6 : AF_INET, bytes, text, sizeof(text));
  return text;
}

bool operator==(const IpEndpoint& a, const IpEndpoint& b) {
  if (a.is_v6() != b.is_v6() || a.port() != b.port()) return false;
  if (!a.is_v6()) return a.v4_.sin_addr.s_addr == b.v4_.sin_addr.s_addr;
  return std::memcmp(&a.v6_.sin6_addr, &b.v6_.sin6_addr, sizeof(in6_addr)) == 0;
}

size_t IpEndpoint::hash() const {
  // Only addresses that the app registered are ever stored under this hash, so it need not be
  // keyed.
  uint64_t h = 0x9e3779b97f4a7c15ULL ^ port();
  const auto mix = [&h](uint64_t word) {
    h = (h ^ word) * 0xbf58476d1ce4e5b9ULL;
    h ^= h >> 29;
  };
  if (is_v6()) {
    uint64_t words[2];
    std::memcpy(words, &v6_.sin6_addr, sizeof(words));
    mix(words[0]);
    mix(words[1]);
  } else {
    mix(v4_.sin_addr.s_addr);
  }
  return h;
}

}  // namespace apo
