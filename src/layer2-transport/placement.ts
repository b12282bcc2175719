/**
 * An app endpoint that lives in a layer-2 worker, beside its connections: what the worker gives it, and asks of it.
 *
 * Layer 2. The endpoint itself is layer 1's, which the worker loads by the URL that layer 1 hands it. Descriptors go
 * between the two by a link within the thread; what the worker only passes on (control messages) it does not read.
 */

import type { LinkEnd } from "./link.ts";

/** What layer 1 sends along. Plain data and shared memory. */
export interface PlaceStart {
  /** Layer 1's module; its default export is a `CreatePlaced`. */
  readonly url: string;
  readonly counters: SharedArrayBuffer;
  readonly isHost: boolean;
}

/** What the worker adds. */
export interface PlacedContext extends PlaceStart {
  /** The worker, which is the endpoint's party and pool partition as well. */
  readonly index: number;
  readonly pool: SharedArrayBuffer;
  readonly nodes: SharedArrayBuffer;
  readonly owners: SharedArrayBuffer;
  /** The endpoint's end of the link within the thread. */
  readonly link: LinkEnd;
  /** Sends a control message to the main thread. */
  tell(message: unknown): void;
}

export interface PlacedApp {
  /** Handles one descriptor of the worker's dispatcher. */
  receive(words: Int32Array, at: number): void;
  /** Handles what has come by the rings from other workers, and publishes what was posted to them. */
  serve(): void;
  /** Obeys a control message of the main thread. */
  obey(message: unknown): void;
  /** The runtime ends: tells what there is to tell. */
  close(): void;
}

export type CreatePlaced = (context: PlacedContext) => PlacedApp;
