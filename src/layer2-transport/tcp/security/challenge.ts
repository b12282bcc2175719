/**
 * How many challenge ACKs a connection may send (RFC 5961 7): few, and nobody outside can tell how few.
 *
 * Layer 2, pure. A limit that all connections share tells a stranger what happens on others (CVE-2016-5696), so each
 * connection has its own, drawn anew for every stretch of time. The state is one int32 (0: fresh), so that it has room
 * in any record: bits 0-3 what is left, bits 4-30 the stretch's end, in ticks of 64 ms.
 */

const tickMs = 64;
const tickMask = 0x7ff_ffff;
/** A stretch has 8 to 23 ticks, about half a second to a second and a half, */
const leastTicks = 8;
const ticksSpread = 16;
/** and 3 to 10 challenges. */
const leastBudget = 3;
const budgetSpread = 8;

/**
 * Asks for one challenge ACK. Returns the new state; -1: none now, and the state stays. `word` is a fresh random word,
 * looked at when a new stretch begins.
 */
export function chargeChallenge(state: number, nowMs: number, word: number): number {
  const tick = Math.floor(nowMs / tickMs) & tickMask;
  const ticksLeft = ((state >>> 4) - tick) & tickMask;
  // An end further off than any stretch is long lies in the past: the ticks have wrapped.
  if (state !== 0 && ticksLeft > 0 && ticksLeft < leastTicks + ticksSpread) {
    return (state & 15) === 0 ? -1 : state - 1;
  }
  const end = (tick + leastTicks + (word & (ticksSpread - 1))) & tickMask;
  return (end << 4) | (leastBudget - 1 + ((word >>> 4) & (budgetSpread - 1)));
}
