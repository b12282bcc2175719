/** Joins a wire as the runtime does it, for tests of layer 3 alone. */

import { checkLinkOptions } from "../../src/layer3-ip/links/link-settings.ts";
import { type RawLink, startRawLink } from "../../src/layer3-ip/raw-link.ts";

export interface MemLinkTestOptions {
  readonly wire: unknown;
  readonly address: string | undefined;
  readonly prefixes?: readonly string[] | undefined;
  readonly pcap?: string | undefined;
  readonly pool: SharedArrayBuffer;
  readonly partition: number;
}

export function startMemLink(options: MemLinkTestOptions): RawLink {
  const { wire, address, prefixes, pcap, pool, partition } = options;
  const own = {
    ...(address !== undefined && { address }),
    ...(prefixes && { prefixes: prefixes.join(", ") }),
    ...(pcap !== undefined && { pcap }),
  };
  return startRawLink({ settings: checkLinkOptions("mem", { wire, ...own }), pool, partition });
}
