/**
 * A multicast group that a listener has joined: which datagrams it takes, and its name for the native thread.
 *
 * Layer 2, raw links. Pure.
 */

import { addressRecords, addressWords, parsePrefix } from "../../layer3-ip/ip-prefix.ts";
import type { FlowKey } from "./flow.ts";
import type { GroupJoin } from "./udp-options.ts";

export class JoinedGroup {
  /** The records of the group and of its one source, if there is one. */
  readonly records: Uint8Array;
  private readonly wordCount: 1 | 4;
  private readonly group: Int32Array;
  private readonly source: Int32Array | undefined;

  constructor({ group, source }: GroupJoin) {
    const own = parsePrefix(group);
    this.records = addressRecords(source === undefined ? [own] : [own, parsePrefix(source)]);
    this.wordCount = own.version6 ? 4 : 1;
    this.group = own.words;
    this.source = source === undefined ? undefined : addressWords(source)?.words;
  }

  /** Whether a datagram of this flow, which is to a group, is for whoever has joined this one. */
  takes({ words, wordCount }: FlowKey): boolean {
    if (wordCount !== this.wordCount) return false;
    for (let i = 0; i < wordCount; i += 1) {
      if (words[4 + i] !== this.group[i]) return false;
      if (this.source !== undefined && words[i] !== this.source[i]) return false;
    }
    return true;
  }
}
