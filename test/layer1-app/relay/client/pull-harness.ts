/** A relay on a real runtime for the tests of pulls, with its log, and a reader that counts packets. */

import {
  type Described,
  describe,
  play,
  setUp,
} from "../../../../src/layer1-app/relay/client/camera-session.ts";
import { parseCameraUrl } from "../../../../src/layer1-app/relay/client/camera-url.ts";
import { InterleavedInput } from "../../../../src/layer1-app/relay/client/interleaved-input.ts";
import {
  type Pull,
  type PullOptions,
  startPull,
} from "../../../../src/layer1-app/relay/client/pull-source.ts";
import { createRelay } from "../../../../src/layer1-app/relay/relay.ts";
import type { Relay, RelayOptions } from "../../../../src/layer1-app/relay/types.ts";
import { createRuntime } from "../../../../src/layer1-app/runtime.ts";
import type { Apo } from "../../../../src/layer1-app/types.ts";

export interface Bench extends AsyncDisposable {
  readonly apo: Apo;
  readonly relay: Relay;
  /** Lines of the log. */
  readonly log: string[];
  pull(options: Omit<PullOptions, "name"> & { name?: string }): Pull;
}

/** Short waits, so that a test sees several tries; no randomness. */
export const QUICK = { minMs: 40, maxMs: 200, random: () => 0.5 };

export async function openBench(options: RelayOptions = {}): Promise<Bench> {
  const log: string[] = [];
  const apo = await createRuntime({ workers: 1 });
  const write = (entry: { text: string }): void => void log.push(entry.text);
  const relay = await createRelay(apo, {
    port: 0,
    rtpPort: 0,
    address: "127.0.0.1",
    lingerMs: 10,
    log: write,
    ...options,
  });
  const pulls: Pull[] = [];
  return {
    apo,
    relay,
    log,
    pull(given) {
      const pull = startPull(apo, relay, { name: "cam", backoff: QUICK, log: write, ...given });
      pulls.push(pull);
      return pull;
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(pulls.map((pull) => pull.stop()));
      await relay.close();
      await apo.close();
    },
  };
}

/** A reader over TCP, counting RTP packets of each track. */
export interface CountingReader {
  readonly described: Described;
  readonly packets: number[];
  readonly open: boolean;
  close(): void;
}

export async function openReader(apo: Apo, url: string): Promise<CountingReader> {
  const packets: number[] = [];
  const input = new InterleavedInput({
    packets: (track, _bytes, _offsets, count) => {
      packets[track] = (packets[track] ?? 0) + count;
    },
    report: () => {},
  });
  const described = await describe(apo, parseCameraUrl(url), { frames: (bytes) => input.take(bytes) });
  for (const index of described.sdp.media.keys()) {
    const channels = [2 * index, 2 * index + 1] as const;
    packets[index] = 0;
    input.assign(index, channels);
    await setUp(described, index, { lower: "tcp", channels });
  }
  await play(described);
  return {
    described,
    packets,
    get open() {
      return described.client.open;
    },
    close: () => described.client.close(),
  };
}
