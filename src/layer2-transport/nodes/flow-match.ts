/**
 * Whether a v-node is that of a packet's flow: the check behind every way of finding a connection.
 *
 * Layer 2, pure. What a packet says about its slot (a label, an echoed id) is a hint from outside; this decides.
 */

import { node as fields, sixFlag as sixBit, nodeState as states } from "./v-node.ts";

// Compiled in, as imported ones are not.
const node = fields;
const nodeState = states;
const sixFlag = sixBit;

const protocolMask = 3;

/**
 * Compares the record at `base` with a flow: `words` has the peer's address at `at` (1 word or 4, `wordCount`) and
 * ours at `at + 4`; `ports` is the peer's port << 16 | ours; `protocol` as in the record's flags (0 is TCP).
 */
export function matches(
  nodes: Int32Array,
  base: number,
  words: Int32Array,
  at: number,
  wordCount: number,
  ports: number,
  protocol = 0,
): boolean {
  if (nodes[base + node.ports] !== ports) return false;
  if (nodes[base + node.peerAddress] !== words[at]) return false;
  if (nodes[base + node.localAddress] !== words[at + 4]) return false;
  // A record that is free keeps its last words.
  if (nodes[base + node.state] === nodeState.free) return false;
  const six = wordCount === 4;
  const flags = (nodes[base + node.flags] as number) & (sixFlag | protocolMask);
  if (flags !== (six ? sixFlag | protocol : protocol)) return false;
  if (!six) return true;
  return (
    nodes[base + node.peerAddress + 1] === words[at + 1] &&
    nodes[base + node.peerAddress + 2] === words[at + 2] &&
    nodes[base + node.peerAddress + 3] === words[at + 3] &&
    nodes[base + node.localAddress + 1] === words[at + 5] &&
    nodes[base + node.localAddress + 2] === words[at + 6] &&
    nodes[base + node.localAddress + 3] === words[at + 7]
  );
}
