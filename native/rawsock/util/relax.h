// One breath of a thread that looks at memory until it changes: tells the processor so, which saves
// power and leaves the other half of a core alone.
#pragma once

namespace apo {

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace apo
