/** Helpers of the TCP tests: v-node words with given ends, and random words from a seed. */
import { node, nodeWords, sixFlag } from "../../../src/layer2-transport/nodes/v-node.ts";
import { RandomStream, SeedMixer } from "../../../src/layer3-ip/random-stream.ts";

export interface TestEnds {
  peer: number[];
  peerPort: number;
  local: number[];
  localPort: number;
}

/** The ends of a connection between 10.0.0.2:40000 and our 10.0.0.1:80. */
export const usualEnds: TestEnds = {
  peer: [0x0a000002],
  peerPort: 40_000,
  local: [0x0a000001],
  localPort: 80,
};

/** Two v-nodes' worth of words, the second of which has these ends; everything else is filled with `rest`. */
export function nodeWith(ends: Partial<TestEnds> = {}, rest = 0): { words: Int32Array; base: number } {
  const { peer, peerPort, local, localPort } = { ...usualEnds, ...ends };
  const words = new Int32Array(2 * nodeWords).fill(rest);
  const base = nodeWords;
  words[base + node.flags] = peer.length === 4 ? rest | sixFlag : rest & ~sixFlag;
  words[base + node.ports] = (peerPort << 16) | localPort;
  words.set(peer, base + node.peerAddress);
  words.set(local, base + node.localAddress);
  return { words, base };
}

/** Words from a seed, as a `RandomSource` gives them. */
export function seededWords(seed: number): { word(): number } {
  const stream = new RandomStream(new SeedMixer(BigInt(seed)));
  return { word: () => stream.next() | 0 };
}
