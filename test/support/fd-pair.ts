/**
 * A program for the tests of the `fd` link: two runtimes of this process at the two ends of a socket pair, which
 * `socket_pair.c` has put at descriptors 3 and 4. Its argument is what both links have besides; it writes one line of
 * JSON, `FdPairReport`, and ends.
 */
import { closeSync } from "node:fs";
import { createRuntime } from "../../src/layer1-app/runtime.ts";
import type { Apo, RuntimeOptions } from "../../src/layer1-app/types.ts";

export interface FdPairReport {
  /** Bytes that came back, of each size that was asked for. */
  readonly echoed: readonly number[];
  /** Counters of both ends after the echoes, those that are not 0. */
  readonly counters: readonly Record<string, number>[];
  /** What the near end counted after the far one was closed. */
  readonly afterwards: Record<string, number>;
}

export const sizes = [0, 1, 1400, 1472, 1473, 20_000, 65_000];

const port = 7;

function counters(apo: Apo): Record<string, number> {
  return Object.fromEntries(Object.entries(apo.counters()).filter(([, count]) => count !== 0));
}

async function echo(apo: Apo, bytes: number): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const sockfd = await apo.opens({
    protocol: "udp",
    to: `10.0.0.2:${port}`,
    news: new Uint8Array(bytes),
    request: (_, message) => resolve(message.bytes.length),
    closed: (_, reason) => reject(reason.error ?? new Error(reason.code)),
  });
  const length = await promise;
  await apo.close(sockfd);
  return length;
}

async function main(options: RuntimeOptions): Promise<void> {
  const common = { link: "fd", workers: 1, appWorkers: 1, poolBytes: 16 * 2 ** 20, ...options } as const;
  const near = await createRuntime({ ...common, fd: 3, address: "10.0.0.1/24" });
  const far = await createRuntime({ ...common, fd: 4, address: "10.0.0.2/24" });
  await far.opens({ protocol: "udp", port, request: (sockfd, message) => far.sendto(sockfd, message.bytes) });
  const echoed: number[] = [];
  for (const bytes of sizes) echoed.push(await echo(near, bytes));
  const both = [counters(near), counters(far)];
  // The far end's descriptor is still ours when its runtime is closed; then the end is gone.
  await far.close();
  closeSync(4);
  const sockfd = await near.opens({ protocol: "udp", to: `10.0.0.2:${port}`, closed() {} });
  while (counters(near)["layer3.link.ended"] === undefined) {
    await near.sendto(sockfd, new Uint8Array(1));
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const report: FdPairReport = { echoed, counters: both, afterwards: counters(near) };
  await near.close();
  process.stdout.write(`${JSON.stringify(report)}\n`);
}

if (process.argv[1] === import.meta.filename) {
  await main(JSON.parse(process.argv[2] ?? "{}") as RuntimeOptions);
}
