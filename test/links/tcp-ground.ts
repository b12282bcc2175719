/**
 * Where our TCP meets the kernel's: the link, a kernel at its other end, and one further off behind a wire that can be
 * made bad.
 *
 *   far ── wire (tools/wire.c) ── near ── the link ── app
 *
 * `near` forwards between the two. The far kernel is the one that tests talk with, so that what they ask of a path they
 * ask of the wire.
 */
import { createHash, randomFillSync } from "node:crypto";
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { compileTools, openWorkshop, type Tools, type Workshop } from "../../bench/lib/compile.ts";
import { BadWire, type WireRules } from "../../bench/lib/room.ts";
import { closeNamespaces, createNamespace, type Namespace } from "../support/netns.ts";
import { startTcpApp } from "../support/tcp-app.ts";
import { startTcpPeer } from "../support/tcp-peer.ts";
import type { TcpEnd } from "../support/tcp-words.ts";
import type { JoinedLink, LinkPlan } from "./kernel-suite.ts";

export const farAddresses = ["10.70.0.2", "fd70::2"] as const;
export const families = [
  { name: "IPv4", at: 0, curl: "-4" },
  { name: "IPv6", at: 1, curl: "-6" },
] as const;

/** What is moved each way on a clean wire; APO_TCP_BYTES for more (1,000,000,000 is what is promised). */
export const bulkBytes = Number(process.env.APO_TCP_BYTES ?? 64 * 2 ** 20);
/** What is moved where packets are lost. */
export const hardBytes = 4 * 2 ** 20;

/** A file of random bytes. */
export interface Sample {
  readonly file: string;
  readonly name: string;
  readonly bytes: number;
  readonly sha256: string;
}

export const goodWire: WireRules = {
  delayMs: 0,
  loss: 0,
  duplicate: 0,
  corrupt: 0,
  reorder: 0,
  mark: 0,
  rateBitsPerSecond: 0,
};

export class TcpGround {
  readonly plan: LinkPlan;
  readonly joined: JoinedLink;
  readonly far: Namespace;
  readonly wire: BadWire;
  readonly tools: Tools<"wire" | "echo_client">;
  /** Our end. */
  app: TcpEnd;
  /** The kernel's, in `far`. */
  readonly kernel: TcpEnd;
  readonly folder: string;
  readonly big: Sample;
  readonly small: Sample;
  private readonly workshop: Workshop;

  private constructor(
    parts: Omit<TcpGround, "near" | "close" | "start" | "restart" | "pcap"> & { workshop: Workshop },
  ) {
    this.plan = parts.plan;
    this.joined = parts.joined;
    this.far = parts.far;
    this.wire = parts.wire;
    this.tools = parts.tools;
    this.app = parts.app;
    this.kernel = parts.kernel;
    this.folder = parts.folder;
    this.big = parts.big;
    this.small = parts.small;
    this.workshop = parts.workshop;
  }

  get near(): Namespace {
    return this.joined.near;
  }

  static async open(plan: LinkPlan): Promise<TcpGround> {
    const workshop = await openWorkshop();
    const tools = await compileTools(workshop, ["wire", "echo_client"]);
    const joined = await plan.join();
    const far = await createNamespace();
    const wire = await joinFar(tools.wire, joined.near, far);
    const folder = mkdtempSync(join(tmpdir(), "apo-tcp-"));
    const big = writeSample(folder, "big", bulkBytes);
    const small = writeSample(folder, "small", hardBytes);
    const app = await startTcpApp(joined.inside, joined.options, joined.prefix);
    await joined.whenUp?.();
    const kernel = await startTcpPeer(far);
    return new TcpGround({ plan, joined, far, wire, tools, app, kernel, folder, big, small, workshop });
  }

  /** Ends the app and starts it with other options of the runtime. */
  async restart(options: JoinedLink["options"] = {}): Promise<void> {
    await this.app.child.stop();
    this.app = await startTcpApp(
      this.joined.inside,
      { ...this.joined.options, ...options },
      this.joined.prefix,
    );
    await this.joined.whenUp?.();
  }

  async close(): Promise<void> {
    await closeNamespaces();
    await this.wire.stop();
    this.workshop.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Changes the MTU of the path between `near` and `far`. */
export async function setPathMtu({ near, far }: Pick<TcpGround, "near" | "far">, mtu: number): Promise<void> {
  await near.ip("link", "set", "hop0", "mtu", String(mtu));
  await far.ip("link", "set", "far0", "mtu", String(mtu));
  // Below 1280 there is no IPv6 on a device, and it does not come back by itself.
  if (mtu >= 1280) await addIpv6(near, far);
  for (const room of [near, far]) {
    for (const version of ["-4", "-6"]) await room.ip(version, "route", "flush", "cache");
  }
}

async function addIpv6(near: Namespace, far: Namespace): Promise<void> {
  await near.ip("addr", "replace", "fd70::1/64", "dev", "hop0", "nodad");
  await far.ip("addr", "replace", "fd70::2/64", "dev", "far0", "nodad");
  await far.ip("-6", "route", "replace", "default", "via", "fd70::1");
}

async function joinFar(program: string, near: Namespace, far: Namespace): Promise<BadWire> {
  const wire = await BadWire.join(
    program,
    { place: near, device: "hop0", addresses: ["10.70.0.1/24", "fd70::1/64"] },
    { place: far, device: "far0", addresses: ["10.70.0.2/24", "fd70::2/64"] },
  );
  for (const name of ["ipv4/ip_forward", "ipv6/conf/all/forwarding"]) await near.sysctl(name, 1);
  await far.ip("route", "add", "default", "via", "10.70.0.1");
  await addIpv6(near, far);
  return wire;
}

function writeSample(folder: string, name: string, bytes: number): Sample {
  const file = join(folder, name);
  const hash = createHash("sha256");
  const chunk = new Uint8Array(2 ** 20);
  const descriptor = openSync(file, "w");
  for (let left = bytes; left > 0; left -= chunk.length) {
    randomFillSync(chunk);
    const piece = chunk.subarray(0, Math.min(left, chunk.length));
    hash.update(piece);
    writeSync(descriptor, piece);
  }
  closeSync(descriptor);
  return { file, name, bytes, sha256: hash.digest("hex") };
}
