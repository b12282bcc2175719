/**
 * An echo server of ours on any link but `mem`: one listener on port 7. Ends when stdin does.
 *
 *   echo-server.ts '{"runtime":{"link":"tun",…},"placement":"worker"}'
 *
 * On stdin "counters" is answered by one line of JSON.
 */
import { createInterface } from "node:readline";
import { createRuntime } from "../../../src/layer1-app/runtime.ts";
import type { RuntimeOptions } from "../../../src/layer1-app/types.ts";
import { handlersAt, type Placement } from "./placement.ts";

export const echoPort = 7;

export interface EchoServerOptions {
  readonly runtime: RuntimeOptions;
  readonly placement: Placement;
}

async function main({ runtime, placement }: EchoServerOptions): Promise<void> {
  const apo = await createRuntime({ workers: 1, poolBytes: 2 ** 28, ...runtime });
  const handlers = await handlersAt(placement, new URL("./echo-handlers.ts", import.meta.url));
  await apo.opens({ protocol: "tcp", port: echoPort, backlog: 256, ...handlers });
  process.stdout.write('{"ready":true}\n');
  for await (const _ of createInterface({ input: process.stdin })) {
    process.stdout.write(`${JSON.stringify(apo.counters())}\n`);
  }
  await apo.close();
}

if (process.argv[1] === import.meta.filename)
  await main(JSON.parse(process.argv[2] ?? "{}") as EchoServerOptions);
