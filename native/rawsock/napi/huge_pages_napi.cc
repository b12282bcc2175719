// Tables of gigabytes in huge pages: a lookup among millions else waits for the page tables as long as
// for the table itself.
#include <sys/mman.h>

#include <cerrno>

#include "napi/napi_arguments.h"
#include "napi/registration.h"

namespace apo {
namespace {

// The kernel wants whole pages; what it makes huge of them is what holds a huge page's extent.
constexpr uintptr_t kPageBytes = 4096;

// (words, first, count): 0, or an errno. Nothing is touched: pages come as they are written.
Napi::Value prefer_huge_pages_call(const Napi::CallbackInfo& info) {
  const Arguments args(info);
  const std::span<uint32_t> words = args.words(0);
  const uint32_t first = args.uint32(1);
  const uint32_t count = args.uint32(2);
  if (!args.good()) return info.Env().Undefined();
  if (first > words.size() || count > words.size() - first) {
    return args.fail("preferHugePages: the words are outside the array");
  }
  const auto from = reinterpret_cast<uintptr_t>(words.data() + first);
  const uintptr_t to = (from + count * sizeof(uint32_t)) & ~(kPageBytes - 1);
  const uintptr_t start = (from + kPageBytes - 1) & ~(kPageBytes - 1);
  int error = 0;
  if (start < to && madvise(reinterpret_cast<void*>(start), to - start, MADV_HUGEPAGE) != 0)
    error = errno;
  return Napi::Number::New(info.Env(), error);
}

}  // namespace

void register_huge_pages(Napi::Env env, Napi::Object exports) {
  exports.Set("preferHugePages",
              Napi::Function::New<&prefer_huge_pages_call>(env, "preferHugePages"));
}

}  // namespace apo
