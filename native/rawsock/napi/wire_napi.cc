// The wire of the `mem` link as a JavaScript class. The typed mirror is in src/layer3-ip/native.ts.
#include <cerrno>

#include "links/mem_wire.h"
#include "napi/address_records.h"
#include "napi/napi_arguments.h"
#include "napi/registration.h"

namespace apo {
namespace {

class WireWrap : public Napi::ObjectWrap<WireWrap> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "NativeWire",
        {InstanceAccessor<&WireWrap::id>("id"), InstanceAccessor<&WireWrap::mtu>("mtu"),
         InstanceAccessor<&WireWrap::endpoints>("endpoints"),
         InstanceAccessor<&WireWrap::impairment>("impairment"),
         InstanceMethod<&WireWrap::impair>("impair"),
         InstanceMethod<&WireWrap::add_mirror>("addMirror"),
         InstanceMethod<&WireWrap::remove_mirror>("removeMirror"),
         InstanceMethod<&WireWrap::inject>("inject")});
  }

  // (mtu, inboxBytes, impairment) makes a wire; (id) finds one of this process.
  explicit WireWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<WireWrap>(info) {
    const Arguments args(info);
    const uint32_t first = args.uint32(0);
    if (!args.good()) return;
    if (info.Length() == 1) {
      wire_ = MemWire::find(first);
      if (!wire_) args.fail("NativeWire: this process has no such wire");
      return;
    }
    MemWireOptions options;
    options.mtu = first;
    options.inbox_bytes = args.uint32(1);
    const auto impairment = ImpairmentSettings::from(args.doubles(2));
    if (!args.good()) return;
    if (!impairment || impairment->mtu != 0) {
      args.fail("NativeWire: the impairment is out of range");
      return;
    }
    options.impairment = *impairment;
    if (options.mtu < MemWireOptions::kMtuMin || options.mtu > MemWireOptions::kMtuMax ||
        options.inbox_bytes < MemWireOptions::kInboxBytesMin ||
        options.inbox_bytes > MemWireOptions::kInboxBytesMax) {
      args.fail("NativeWire: the MTU or the inbox's size is out of range");
      return;
    }
    wire_ = MemWire::create(options);
  }

 private:
  Napi::Value id(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), wire_->id());
  }
  Napi::Value mtu(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(wire_->options().mtu));
  }
  Napi::Value endpoints(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(wire_->endpoints()));
  }

  // The settings as they are now, in the fields' order.
  Napi::Value impairment(const Napi::CallbackInfo& info) {
    Napi::Float64Array numbers = Napi::Float64Array::New(info.Env(), ImpairmentSettings::kFields);
    wire_->impairment().to(std::span<double, ImpairmentSettings::kFields>(
        numbers.Data(), ImpairmentSettings::kFields));
    return numbers;
  }

  Napi::Value impair(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    const auto settings = ImpairmentSettings::from(args.doubles(0));
    if (!args.good()) return info.Env().Undefined();
    if (!settings || settings->mtu != 0) return args.fail("impair: a setting is out of range");
    wire_->impair(*settings);
    return info.Env().Undefined();
  }

  // (address records): the mirror's number; -EADDRINUSE, or -ENFILE when the wire is full.
  Napi::Value add_mirror(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    AddressSet addresses;
    const std::span<uint8_t> records = args.bytes(0);
    if (!args.good()) return info.Env().Undefined();
    if (!read_addresses(records, addresses) || addresses.size() == 0) {
      return args.fail("addMirror: address records are needed");
    }
    IpAddress taken;
    taken.version = 0;
    const uint32_t number = wire_->add_mirror(addresses, &taken);
    if (number != 0) return Napi::Number::New(info.Env(), number);
    return Napi::Number::New(info.Env(), taken.version != 0 ? -EADDRINUSE : -ENFILE);
  }

  Napi::Value remove_mirror(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    const uint32_t number = args.uint32(0);
    if (args.good()) wire_->unplug(number);
    return info.Env().Undefined();
  }

  // (address record, bytes): the name of the counter that says what became of it.
  Napi::Value inject(const Napi::CallbackInfo& info) {
    const Arguments args(info);
    const std::span<uint8_t> record = args.bytes(0);
    const std::span<uint8_t> bytes = args.bytes(1);
    OwnAddress to;
    if (!args.good()) return info.Env().Undefined();
    if (!read_address(record, to) || bytes.empty()) {
      return args.fail("inject: an address record and at least one byte are needed");
    }
    const LinkCounter result = wire_->inject(to.prefix.address, bytes);
    return Napi::String::New(info.Env(), kLinkCounterNames[static_cast<size_t>(result)]);
  }

  std::shared_ptr<MemWire> wire_;
};

}  // namespace

void register_wire(Napi::Env env, Napi::Object exports) {
  exports.Set("NativeWire", WireWrap::define(env));
}

}  // namespace apo
