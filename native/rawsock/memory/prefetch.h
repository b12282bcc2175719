// Cache lines that another processor has written or read last, fetched before they are needed. Between
// two processors a line takes about 100 ns, which is as long as the rest of a packet's way.
#pragma once

namespace apo {

// For writing: the line comes alone to this processor, so that the store need not wait for it. Any
// address will do; one that is not there is ignored.
inline void prefetch_for_write(const void* at) {
#if defined(__x86_64__) || defined(__i386__)
  // __builtin_prefetch fetches for reading unless the compiler may assume newer processors; those that
  // do not know this instruction take it for none.
  asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(at)));
#else
  __builtin_prefetch(at, 1);
#endif
}

}  // namespace apo
