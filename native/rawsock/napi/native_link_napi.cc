// An opened link as a JavaScript class, and opening ports on one from any thread. The typed mirror is
// in src/layer3-ip/native.ts.
#include "napi/native_link_napi.h"

#include <cerrno>
#include <cstring>
#include <random>

#include "links/link_registry.h"
#include "napi/address_records.h"
#include "napi/napi_arguments.h"
#include "napi/registration.h"

namespace apo {
namespace {

// Tells a NativeLink from other objects.
constexpr napi_type_tag kLinkTag = {0x6b6e696c2d6f7061, 0x31};

// Numbers, booleans and strings of a plain object. False: it has something else.
bool read_settings(const Napi::Object& object, LinkSettings& settings) {
  const Napi::Array names = object.GetPropertyNames();
  for (uint32_t i = 0; i < names.Length(); ++i) {
    const Napi::Value name = names[i];
    const Napi::Value value = object.Get(name);
    const std::string key = name.ToString().Utf8Value();
    if (value.IsNumber()) {
      settings.set(key, value.As<Napi::Number>().DoubleValue());
    } else if (value.IsBoolean()) {
      settings.set(key, value.As<Napi::Boolean>().Value());
    } else if (value.IsString()) {
      settings.set(key, value.As<Napi::String>().Utf8Value());
    } else {
      return false;
    }
  }
  return true;
}

class LinkWrap : public Napi::ObjectWrap<LinkWrap> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "NativeLink",
        {InstanceAccessor<&LinkWrap::id>("id"), InstanceAccessor<&LinkWrap::queues>("queues"),
         InstanceAccessor<&LinkWrap::mtu>("mtu"), InstanceAccessor<&LinkWrap::device>("device"),
         InstanceAccessor<&LinkWrap::addresses>("addresses"),
         InstanceMethod<&LinkWrap::close>("close")});
  }

  // (kind, settings, address records, route records)
  explicit LinkWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<LinkWrap>(info) {
    const Arguments args(info);
    const std::string kind = args.string(0);
    const std::span<uint8_t> addresses = args.bytes(2);
    const std::span<uint8_t> routes = args.bytes(3);
    if (!args.good()) return;
    LinkSettings settings;
    if (!info[1].IsObject() || !read_settings(info[1].As<Napi::Object>(), settings) ||
        !read_addresses(addresses, settings.addresses) || !read_routes(routes, settings.routes)) {
      args.fail("NativeLink: settings, addresses and routes are needed");
      return;
    }
    auto opened = std::make_shared<OpenedLink>(open_link(kind, settings));
    if (opened->queues.empty()) {
      const int error = opened->error != 0 ? opened->error : EIO;
      Napi::Error failure =
          Napi::Error::New(info.Env(), kind + ": " + opened->step + ": " + std::strerror(error));
      failure.Set("errno", Napi::Number::New(info.Env(), error));
      failure.Set("step", Napi::String::New(info.Env(), opened->step));
      failure.ThrowAsJavaScriptException();
      return;
    }
    mtu_ = opened->queues.front()->mtu();
    opened->groups = std::make_shared<GroupMembership>(std::random_device{}(),
                                                       !opened->queues.front()->reports_groups());
    link_ = std::move(opened);
    id_ = register_link(link_);
    info.This().As<Napi::Object>().TypeTag(&kLinkTag);
  }

  ~LinkWrap() override { close_link(); }

  [[nodiscard]] std::shared_ptr<OpenedLink> link() const { return link_; }

 private:
  Napi::Value id(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), id_); }
  Napi::Value queues(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), link_ ? static_cast<double>(link_->queues.size()) : 0);
  }
  Napi::Value mtu(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(mtu_));
  }
  Napi::Value device(const Napi::CallbackInfo& info) {
    return Napi::String::New(info.Env(), link_ ? link_->device : "");
  }
  Napi::Value addresses(const Napi::CallbackInfo& info) {
    std::vector<uint8_t> records;
    for (size_t i = 0; link_ && i < link_->addresses.size(); ++i) {
      write_address(link_->addresses.at(i), records);
    }
    Napi::Uint8Array array = Napi::Uint8Array::New(info.Env(), records.size());
    if (!records.empty()) std::memcpy(array.Data(), records.data(), records.size());
    return array;
  }
  Napi::Value close(const Napi::CallbackInfo& info) {
    close_link();
    return info.Env().Undefined();
  }

  // The threads on it are to be closed first; a link that has none yet is closed all the same.
  void close_link() {
    if (!link_) return;
    for (const auto& queue : link_->queues) queue->close();
    link_.reset();
  }

  std::shared_ptr<OpenedLink> link_;
  uint32_t id_ = 0;
  size_t mtu_ = 0;
};

struct PortArguments {
  std::shared_ptr<OpenedLink> link;
  uint8_t protocol = 0;
  uint16_t port = 0;
};

PortArguments read_port(const Arguments& args) {
  const uint32_t id = args.uint32(0);
  const uint16_t protocol = args.uint16(1);
  const uint16_t port = args.uint16(2);
  return {args.good() ? find_link(id) : nullptr, static_cast<uint8_t>(protocol), port};
}

// (link id, IP protocol, port): 0, or an errno; ENODEV when the link has been closed.
Napi::Value open_port(const Napi::CallbackInfo& info) {
  const Arguments args(info);
  const PortArguments port = read_port(args);
  if (!args.good()) return info.Env().Undefined();
  const int error =
      port.link ? port.link->queues.front()->open_port(port.protocol, port.port) : ENODEV;
  return Napi::Number::New(info.Env(), error);
}

Napi::Value close_port(const Napi::CallbackInfo& info) {
  const Arguments args(info);
  const PortArguments port = read_port(args);
  if (port.link) port.link->queues.front()->close_port(port.protocol, port.port);
  return info.Env().Undefined();
}

struct GroupArguments {
  std::shared_ptr<OpenedLink> link;
  OwnAddress group;
  std::optional<OwnAddress> source;
};

// (link id, address records: a group, and a source or none)
std::optional<GroupArguments> read_group(const Arguments& args) {
  const uint32_t id = args.uint32(0);
  const std::span<uint8_t> records = args.bytes(1);
  GroupArguments group;
  OwnAddress source;
  const bool lone = records.size() == kAddressRecordBytes;
  if (!args.good() || (!lone && records.size() != 2 * kAddressRecordBytes) ||
      !read_address(records.first(kAddressRecordBytes), group.group) ||
      (!lone && !read_address(records.subspan(kAddressRecordBytes), source))) {
    args.fail("a link's number and the records of a group and its source are needed");
    return std::nullopt;
  }
  if (!lone) group.source = source;
  group.link = find_link(id);
  return group;
}

// 0, or an errno; the native thread is to be woken.
Napi::Value join_group(const Napi::CallbackInfo& info) {
  const Arguments args(info);
  const auto given = read_group(args);
  if (!given) return info.Env().Undefined();
  int error = ENODEV;
  if (given->link) {
    const IpAddress& group = given->group.prefix.address;
    const IpAddress* source = given->source ? &given->source->prefix.address : nullptr;
    error = given->link->groups->join(group, source);
    if (error == 0) {
      error = given->link->queues.front()->join_group(group, source);
      if (error != 0) given->link->groups->leave(group, source);
    }
  }
  return Napi::Number::New(info.Env(), error);
}

Napi::Value leave_group(const Napi::CallbackInfo& info) {
  const Arguments args(info);
  const auto given = read_group(args);
  if (given && given->link) {
    const IpAddress& group = given->group.prefix.address;
    const IpAddress* source = given->source ? &given->source->prefix.address : nullptr;
    given->link->queues.front()->leave_group(group, source);
    given->link->groups->leave(group, source);
  }
  return info.Env().Undefined();
}

// (eventfd): wakes the native thread that polls it.
Napi::Value ring_event_call(const Napi::CallbackInfo& info) {
  const Arguments args(info);
  const int32_t fd = args.int32(0);
  if (args.good() && fd >= 0) ring_event(fd);
  return info.Env().Undefined();
}

}  // namespace

std::shared_ptr<OpenedLink> link_from(const Napi::Value& value) {
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&kLinkTag)) return nullptr;
  return LinkWrap::Unwrap(value.As<Napi::Object>())->link();
}

void register_native_link(Napi::Env env, Napi::Object exports) {
  exports.Set("NativeLink", LinkWrap::define(env));
  exports.Set("openPort", Napi::Function::New<&open_port>(env, "openPort"));
  exports.Set("closePort", Napi::Function::New<&close_port>(env, "closePort"));
  exports.Set("joinGroup", Napi::Function::New<&join_group>(env, "joinGroup"));
  exports.Set("leaveGroup", Napi::Function::New<&leave_group>(env, "leaveGroup"));
  exports.Set("ringEvent", Napi::Function::New<&ring_event_call>(env, "ringEvent"));
}

}  // namespace apo
