/** Joins a wire as the runtime does it, for tests of layer 3 alone. */

import { explain, settings } from "../../src/layer3-ip/links/mem.ts";
import { type RawLink, startRawLink } from "../../src/layer3-ip/raw-link.ts";

export interface MemLinkTestOptions {
  readonly wire: unknown;
  readonly address: string | undefined;
  readonly prefixes?: readonly string[];
  readonly pool: SharedArrayBuffer;
  readonly partition: number;
}

export function startMemLink({ wire, ...options }: MemLinkTestOptions): RawLink {
  return startRawLink({ kind: "mem", settings: settings({ wire }), explain, ...options });
}
