/**
 * Writes to a node:net socket past its stream, while nothing waits in it.
 *
 * Layer 2, host link. A write through the stream costs about as much again as the kernel's part of it: at a hundred
 * receivers of one container that is most of a worker. Order is kept because the caller uses this only when the stream
 * is empty, and hands it whatever the kernel did not take. Without the addon every write goes through the stream.
 */

import type { Socket } from "node:net";
import { loadWriteNow, type WriteNow } from "../../layer3-ip/write-now.ts";

let loaded: WriteNow | null | undefined;

/** node:net shows the descriptor on the stream's handle only; the handle goes with the descriptor, so none is stale. */
function descriptorOf(socket: Socket): number {
  return (socket as unknown as { _handle?: { fd?: number } | null })._handle?.fd ?? -1;
}

/**
 * How many bytes the kernel took at once; 0 when it takes none, or must not be asked: the socket is being closed, has
 * failed, or something waits in its stream.
 */
export function writeDirectly(socket: Socket, bytes: Uint8Array): number {
  if (loaded === undefined) loaded = loadWriteNow() ?? null;
  if (loaded === null || !socket.writable || socket.connecting || socket.writableLength > 0) return 0;
  const descriptor = descriptorOf(socket);
  if (descriptor < 0) return 0;
  // An error is the stream's to meet: it does, at the write that follows.
  return Math.max(0, loaded(descriptor, bytes));
}
