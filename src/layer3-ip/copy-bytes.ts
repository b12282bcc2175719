/**
 * Copies bytes to, from and within shared memory.
 *
 * Layer 3, pure. V8's own `set` and `copyWithin` are safe there against other threads' writes, and slow: eight bytes at
 * a time where both ends are aligned alike, else byte by byte (64 KiB: 8 us and 140 us). `Buffer.copy` is a plain
 * memmove, unless a whole array is copied; and memmoves of more than a few KiB between places of unlike alignment
 * are ten times slower on some processors (`rep movsb`), so it is done in pieces.
 */

const pieceBytes = 2048;
/** Fewer bytes are copied here: a call costs more. */
const fewBytes = 16;
const { copy } = Buffer.prototype;

/** Copies `length` bytes from `source` at `from` into `target` at `to`. The two must not overlap. */
export function copyBytes(
  source: Uint8Array,
  from: number,
  target: Uint8Array,
  to: number,
  length: number,
): void {
  if (length <= fewBytes) {
    for (let i = 0; i < length; i += 1) target[to + i] = source[from + i] as number;
    return;
  }
  // A whole array would take the slow way: its last byte goes by itself.
  const last = length - 1;
  target[to + last] = source[from + last] as number;
  for (let done = 0; done < last; done += pieceBytes) {
    const end = done + pieceBytes < last ? done + pieceBytes : last;
    copy.call(source as Buffer, target, to + done, from + done, from + end);
  }
}
