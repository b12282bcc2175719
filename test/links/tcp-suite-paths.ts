/** Our TCP and the kernel's over paths that are not good, and with peers that lack what is usual. */
import { expect, test } from "vitest";
import { eventually, type Namespace } from "../support/netns.ts";
import { at } from "../support/tcp-words.ts";
import type { LinkPlan } from "./kernel-suite.ts";
import { farAddresses, goodWire, setPathMtu, type TcpGround } from "./tcp-ground.ts";

const longMs = 240_000;

/** What the kernel's side may lack. */
const sysctls = [
  { name: "without timestamps", set: { "ipv4/tcp_timestamps": 0 } },
  { name: "without SACK", set: { "ipv4/tcp_sack": 0 } },
  { name: "without window scaling", set: { "ipv4/tcp_window_scaling": 0 } },
  {
    name: "without any option",
    set: { "ipv4/tcp_timestamps": 0, "ipv4/tcp_sack": 0, "ipv4/tcp_window_scaling": 0 },
  },
  { name: "asking for ECN", set: { "ipv4/tcp_ecn": 1 } },
  { name: "reflecting flow labels", set: { "ipv6/flowlabel_reflect": 7 } },
] as const;

const usual: Readonly<Record<string, number>> = {
  "ipv4/tcp_timestamps": 1,
  "ipv4/tcp_sack": 1,
  "ipv4/tcp_window_scaling": 1,
  "ipv4/tcp_ecn": 2,
  "ipv6/flowlabel_reflect": 0,
};

const wires = [
  { name: "loses one packet in a hundred", rules: { loss: 0.01 } },
  { name: "loses one in a hundred and takes 20 ms", rules: { loss: 0.01, delayMs: 10 } },
  { name: "reorders", rules: { reorder: 0.05, reorderMs: 3, delayMs: 2 } },
  { name: "duplicates", rules: { duplicate: 0.05 } },
  { name: "damages", rules: { corrupt: 0.005, delayMs: 1 } },
  {
    name: "does all of it",
    rules: { loss: 0.01, duplicate: 0.01, corrupt: 0.005, reorder: 0.02, reorderMs: 3, delayMs: 2 },
  },
  { name: "carries 50 Mbit/s behind a short queue", rules: { rateBitsPerSecond: 5e7, queueBytes: 30_000 } },
  { name: "marks congestion", rules: { mark: 0.01, delayMs: 1 } },
] as const;

export function pathCases(plan: LinkPlan, version: 0 | 1, ground: () => TcpGround): void {
  const own = plan.own[version];
  const far = farAddresses[version];

  test.each(wires)("over a wire that $name", { timeout: longMs }, async ({ rules }) => {
    const { wire, far: room } = ground();
    const ecn = "mark" in rules ? 1 : 2;
    await room.sysctl("ipv4/tcp_ecn", ecn);
    await wire.set({ ...goodWire, ...rules });
    try {
      await bothWays(ground(), own, far);
    } finally {
      await wire.set(goodWire);
      await room.sysctl("ipv4/tcp_ecn", 2);
    }
  });

  test.each(sysctls)("with a kernel $name", { timeout: longMs }, async ({ set }) => {
    const { far: room } = ground();
    await setAll(room, set);
    try {
      await bothWays(ground(), own, far);
    } finally {
      await setAll(room, usual);
    }
  });

  const sizes = version === 0 ? [576, 1280, 9000] : [1280, 9000];
  test.each(sizes)("over a path of MTU %i", { timeout: longMs }, async (mtu) => {
    await setPathMtu(ground(), mtu);
    try {
      await bothWays(ground(), own, far);
    } finally {
      await setPathMtu(ground(), 1500);
    }
  });

  test("over a path whose MTU shrinks under way", { timeout: longMs }, async () => {
    const { app, kernel, near, wire, big } = ground();
    const { file, bytes, sha256 } = big;
    const { port } = await kernel.ask({ do: "serve", what: "echo" });
    await wire.set({ ...goodWire, delayMs: 2 });
    try {
      const { packets } = await wire.counts();
      const going = app.ask({ do: "exchange", to: at(far, port), file, half: true });
      await eventually("it is under way", async () => (await wire.counts()).packets > packets + 20);
      await near.ip("link", "set", "hop0", "mtu", "1300");
      expect(await going, await app.show()).toEqual({ bytes, sha256, how: "end" });
    } finally {
      await wire.set(goodWire);
      await setPathMtu(ground(), 1500);
    }
  });
}

/** 4 MB each way on a connection each, from either side's call; every byte right. */
async function bothWays({ app, kernel, small }: TcpGround, own: string, far: string): Promise<void> {
  const { file, bytes, sha256 } = small;
  const whole = { bytes, sha256, how: "end" };
  const giving = await app.ask({ do: "serve", what: "file", file });
  const got = await kernel.ask({ do: "exchange", to: at(own, giving.port), text: "give" });
  expect(got, await app.show()).toEqual(whole);
  const echoing = await kernel.ask({ do: "serve", what: "echo" });
  const back = await app.ask({ do: "exchange", to: at(far, echoing.port), file, half: true });
  expect(back, await app.show()).toEqual(whole);
}

async function setAll(room: Namespace, values: Readonly<Record<string, number>>): Promise<void> {
  for (const [name, value] of Object.entries(values)) await room.sysctl(name, value);
  // What the kernel remembers of a path would outlive the setting.
  await room.ip("tcp_metrics", "flush");
}
