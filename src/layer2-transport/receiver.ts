/**
 * The receiving half of a worker's connections: finds messages in what comes and hands them to the app, one at a time.
 *
 * Layer 2. A stream's frame that holds whole messages is handed over as it is; only what a frame cuts in two is copied
 * together. What comes while a message is with the app waits here up to a limit, beyond which the transport is paused.
 * It knows nothing of sockets or packets.
 */

import type { Connection } from "./connection.ts";
import type { CloseCode } from "./descriptor.ts";
import type { DispatcherContext } from "./dispatcher.ts";
import { framerResult } from "./framer.ts";
import { type FramePool, smallFrameBytes } from "./link.ts";
import { node as fields } from "./nodes/v-node.ts";
import { PieceQueue } from "./piece-queue.ts";
import type { Transport } from "./transport.ts";

const node = fields;
/** Bytes that may wait behind a message before the sender is held off. */
const holdBytes = 65_536;
/** Frames likewise. */
const holdPieces = 32;
/** A message that waits is copied out of a frame which is this many times longer: frames are dear. */
const sparse = 4;
/** How long a lack of pool frames is waited out before it is tried again. */
const retryMs = 2;

/** What the receiver asks of the dispatcher. */
export interface ReceiverHost {
  /** The connection is to end once what was sent is out. */
  finish(connection: Connection, code: CloseCode): void;
}

export class Receiver {
  private readonly context: DispatcherContext;
  private readonly pool: FramePool;
  private readonly words: Int32Array;
  private readonly transport: Transport;
  private readonly host: ReceiverHost;
  private readonly bytesAt: number;
  private readonly messagesAt: number;
  private readonly starved: Connection[] = [];
  private starvedTimer: NodeJS.Timeout | undefined;

  constructor(context: DispatcherContext, transport: Transport, host: ReceiverHost) {
    this.context = context;
    this.pool = context.pool;
    this.words = context.table.words;
    this.transport = transport;
    this.host = host;
    this.bytesAt = context.counters.placeOf("layer2.receive.bytes");
    this.messagesAt = context.counters.placeOf("layer2.receive.messages");
  }

  // --- from the transport -------------------------------------------------------------------------------------

  /** Bytes of a stream that are ours and will not change. */
  received(connection: Connection, bytes: Uint8Array): void {
    this.countReceived(connection, bytes.length);
    if (isOver(connection)) {
      this.dropBytes(connection, bytes.length);
      return;
    }
    connection.input.append(bytes);
    if (!connection.withApp && !connection.starved) this.deliver(connection);
    this.holdOff(connection);
  }

  /** Bytes of a stream in a frame, of which one count is ours now. */
  receivedFrame(connection: Connection, frame: number, offset: number, length: number): void {
    this.countReceived(connection, length);
    if (isOver(connection)) {
      this.pool.release(frame);
      this.dropBytes(connection, length);
      return;
    }
    const isBusy = connection.withApp || connection.starved;
    if (!isBusy && connection.input.length === 0) {
      this.cut(connection, frame, offset, length);
    } else {
      this.keep(connection, frame, offset, length);
      if (!isBusy) this.deliver(connection);
    }
    this.holdOff(connection);
  }

  /** One datagram in a pool container, of which one count is ours now. */
  datagram(connection: Connection, frame: number, offset: number, length: number): void {
    const { counters } = this.context;
    const { rules } = connection;
    this.countReceived(connection, length);
    const { pieces } = connection;
    const full = connection.withApp && (pieces?.length ?? 0) >= rules.waiting;
    if (isOver(connection) || length > rules.recvlen || full) {
      this.pool.release(frame);
      const long = length > rules.recvlen;
      counters.add(full ? "layer2.drop.waiting" : long ? "layer2.drop.recvlen" : "layer2.drop.closing");
      if (full) this.overflowed(connection);
      return;
    }
    if (connection.withApp) this.push(connection, frame, offset, length);
    else this.handFrame(connection, frame, offset, length);
  }

  peerEnded(connection: Connection): void {
    if (connection.peerEnded) return;
    connection.peerEnded = true;
    if (!connection.withApp && !connection.starved && !connection.closing) this.deliver(connection);
  }

  /** The connection has ended: what waits goes. Returns how many bytes of an unfinished message that were. */
  ended(connection: Connection): number {
    const { input, pieces } = connection;
    const unfinished = connection.isStream ? connection.waitingBytes : 0;
    input.clear();
    if (pieces !== undefined) {
      for (; pieces.length > 0; pieces.shift()) this.pool.drop(pieces.frame, this.pool.partition);
    }
    return unfinished;
  }

  // --- from the app's side ------------------------------------------------------------------------------------

  /** The app is through with a message: the next may follow. */
  done(connection: Connection): void {
    connection.withApp = false;
    if (!connection.closing && !connection.ended) this.deliver(connection);
  }

  /** The app wants to hear no more: what waits and what comes is dropped, the sender is not held off. */
  deafen(connection: Connection): void {
    if (!connection.isStream) return;
    connection.deaf = true;
    this.dropBytes(connection, this.ended(connection));
    connection.found = 0;
    if (!connection.withApp) this.wantMore(connection);
  }

  // --- messages to the app ------------------------------------------------------------------------------------

  /** Hands the connection's next message to the app, or sees to it that there will be one. */
  private deliver(connection: Connection): void {
    if (!connection.isStream) {
      this.deliverDatagram(connection);
      return;
    }
    for (;;) {
      if (connection.input.length > 0) {
        if (this.deliverInput(connection)) return;
        if (!connection.hasPieces) break;
        this.join(connection);
      } else {
        if (!connection.hasPieces) break;
        if (this.deliverPiece(connection)) return;
      }
    }
    this.wantMore(connection);
  }

  private deliverDatagram(connection: Connection): void {
    const { pieces } = connection;
    if (pieces === undefined || pieces.length === 0) return;
    const { frame, offset, size } = pieces;
    pieces.shift();
    this.handFrame(connection, frame, offset, size);
  }

  /** The next message out of what has been copied together. False: there is no whole one. */
  private deliverInput(connection: Connection): boolean {
    const { input, framer } = connection;
    if (connection.found === 0) {
      const taken = framer.next(input.bytes, input.start, input.end);
      if (taken === framerResult.incomplete) return false;
      if (taken < 0) {
        this.refuse(connection, taken);
        return true;
      }
      connection.found = taken;
    }
    const copy = this.copy(connection, input.bytes, framer.at, framer.length);
    if (copy === 0) {
      this.starve(connection);
      return true;
    }
    input.consume(connection.found);
    connection.found = 0;
    this.hand(connection, copy, 0, framer.length);
    return true;
  }

  /** The next message out of the first frame that waits. False: what is left of it is now in `input`. */
  private deliverPiece(connection: Connection): boolean {
    const pieces = connection.pieces as PieceQueue;
    const { frame, offset, size } = pieces;
    const { framer } = connection;
    const start = frame * smallFrameBytes + offset;
    const taken = framer.next(this.pool.bytes, start, start + size);
    if (taken === framerResult.incomplete) {
      this.join(connection);
      return false;
    }
    if (taken < 0) {
      this.refuse(connection, taken);
      return true;
    }
    const at = framer.at - frame * smallFrameBytes;
    if (taken === size) {
      pieces.shift();
      this.handFrame(connection, frame, at, framer.length);
      return true;
    }
    if (!this.handPart(connection, frame, at, framer.length)) {
      this.starve(connection);
      return true;
    }
    pieces.consume(taken);
    return true;
  }

  /** A frame for a connection with which nothing waits: messages are looked for where they are. */
  private cut(connection: Connection, frame: number, offset: number, length: number): void {
    const { framer } = connection;
    const start = frame * smallFrameBytes + offset;
    const taken = framer.next(this.pool.bytes, start, start + length);
    if (taken === length) {
      this.handFrame(connection, frame, framer.at - frame * smallFrameBytes, framer.length);
    } else if (taken === framerResult.incomplete) {
      connection.input.appendCopy(this.pool.bytes.subarray(start, start + length));
      this.pool.release(frame);
      this.wantMore(connection);
    } else if (taken < 0) {
      this.pool.release(frame);
      this.refuse(connection, taken);
    } else {
      const at = framer.at - frame * smallFrameBytes;
      if (this.handPart(connection, frame, at, framer.length)) {
        this.push(connection, frame, offset + taken, length - taken);
      } else {
        this.push(connection, frame, offset, length);
        this.starve(connection);
      }
    }
  }

  /** A frame that must wait: as it is, or copied when it holds little. */
  private keep(connection: Connection, frame: number, offset: number, length: number): void {
    if (!connection.hasPieces && length * sparse < this.pool.frameBytes(frame)) {
      const start = frame * smallFrameBytes + offset;
      connection.input.appendCopy(this.pool.bytes.subarray(start, start + length));
      this.pool.release(frame);
    } else {
      this.push(connection, frame, offset, length);
    }
  }

  /** Puts a frame of ours into the queue. Should this worker die, it is found again by its mark. */
  private push(connection: Connection, frame: number, offset: number, length: number): void {
    this.pool.hold(frame, this.pool.partition);
    connection.pieces ??= new PieceQueue();
    connection.pieces.push(frame, offset, length);
  }

  /** The first frame that waits is copied behind what is in `input`. */
  private join(connection: Connection): void {
    const pieces = connection.pieces as PieceQueue;
    const start = pieces.frame * smallFrameBytes + pieces.offset;
    connection.input.appendCopy(this.pool.bytes.subarray(start, start + pieces.size));
    this.pool.drop(pieces.frame, this.pool.partition);
    pieces.shift();
  }

  /** Hands over a whole frame: our count goes with it. A little message does not take a long frame along. */
  private handFrame(connection: Connection, frame: number, offset: number, length: number): void {
    if (length * 2 <= smallFrameBytes && this.pool.frameBytes(frame) > smallFrameBytes) {
      const start = frame * smallFrameBytes + offset;
      const copy = this.copy(connection, this.pool.bytes, start, length);
      if (copy !== 0) {
        this.pool.release(frame);
        this.hand(connection, copy, 0, length);
        return;
      }
    }
    this.pool.assign(frame, connection.link.peer);
    this.hand(connection, frame, offset, length);
  }

  /** Hands over a part of a frame that stays ours as well. False: that took memory, and there is none. */
  private handPart(connection: Connection, frame: number, offset: number, length: number): boolean {
    const { peer } = connection.link;
    if (peer === this.pool.partition) {
      // The app's mark and ours would be the same bit, so a message that does not take the frame has its own.
      const copy = this.copy(connection, this.pool.bytes, frame * smallFrameBytes + offset, length);
      if (copy === 0) return false;
      this.hand(connection, copy, 0, length);
      return true;
    }
    this.pool.retain(frame);
    this.pool.hold(frame, peer);
    this.hand(connection, frame, offset, length);
    return true;
  }

  /** A container with a copy, marked for the app; 0: the pool is empty. */
  private copy(connection: Connection, bytes: Uint8Array, start: number, length: number): number {
    const frame = this.pool.allocate(length);
    if (frame === 0) return 0;
    this.pool.write(frame, 0, bytes.subarray(start, start + length));
    this.pool.hold(frame, connection.link.peer);
    return frame;
  }

  private hand(connection: Connection, frame: number, offset: number, length: number): void {
    const { link } = connection;
    if (link.isClosed) {
      // Its endpoint has died; the connection is about to.
      this.pool.release(frame);
      return;
    }
    const at = connection.base + node.receivedMessages;
    this.words[at] = ((this.words[at] as number) + 1) | 0;
    this.context.counters.addAt(this.messagesAt, 1);
    connection.withApp = true;
    link.post(connection.what, connection.sockfd, connection.generation, frame, offset, length, 0, 0);
  }

  // --- holding off --------------------------------------------------------------------------------------------

  /** No whole message is there: read on, or end after the peer's last. */
  private wantMore(connection: Connection): void {
    if (connection.peerEnded) {
      this.host.finish(connection, "end");
      return;
    }
    if (!connection.paused) return;
    connection.paused = false;
    this.transport.resume(connection);
  }

  private holdOff(connection: Connection): void {
    if (connection.paused || (!connection.withApp && !connection.starved)) return;
    if (connection.waitingBytes <= holdBytes && (connection.pieces?.length ?? 0) < holdPieces) return;
    connection.paused = true;
    this.context.counters.add("layer2.receive.pauses");
    this.transport.pause(connection);
  }

  private refuse(connection: Connection, result: number): void {
    this.host.finish(connection, result === framerResult.tooLong ? "recvlen" : "framing");
  }

  /** The pool is empty: the message waits in the connection, and the sender is held off like behind any other. */
  private starve(connection: Connection): void {
    if (connection.starved) return;
    connection.starved = true;
    this.starved.push(connection);
    this.context.counters.add("layer2.receive.starved");
    this.context.alarm(connection.entry.id, "frames", "the frame pool is empty: messages wait");
    this.starvedTimer ??= setTimeout(() => this.feedStarved(), retryMs);
  }

  private feedStarved(): void {
    this.starvedTimer = undefined;
    for (const connection of this.starved.splice(0)) {
      // One that has ended meanwhile may be another's by now, which did not starve.
      if (!connection.starved) continue;
      connection.starved = false;
      if (!connection.closing && !connection.ended && !connection.withApp) this.deliver(connection);
    }
  }

  private dropBytes(connection: Connection, bytes: number): void {
    const isReadShut = connection.deaf && connection.closing === undefined && !connection.ended;
    this.context.counters.add(isReadShut ? "layer2.drop.read-shutdown" : "layer2.drop.closing", bytes);
  }

  private countReceived(connection: Connection, bytes: number): void {
    const at = connection.base + node.receivedBytes;
    this.words[at] = ((this.words[at] as number) + bytes) | 0;
    this.context.counters.addAt(this.bytesAt, bytes);
  }

  private overflowed(connection: Connection): void {
    const at = connection.base + node.dropped;
    this.words[at] = ((this.words[at] as number) + 1) | 0;
    const text = `UDP datagrams are dropped: ${connection.rules.waiting} of one peer wait for the handler`;
    this.context.alarm(connection.entry.id, "udp-overflow", text);
  }
}

function isOver(connection: Connection): boolean {
  return connection.closing !== undefined || connection.ended || connection.deaf;
}
