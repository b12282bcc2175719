/**
 * Network namespaces for tests that need links of their own: anonymous, joined by veth pairs, gone with the test.
 *
 * A namespace is held open by a `cat` whose stdin is ours: when the test ends, however it ends, `cat` ends, and the
 * kernel takes the namespace and its interfaces away. Nothing here knows of apo; `link-app.ts` runs apps in these.
 *
 *     describeInNamespaces("ping over tun", () => {
 *       afterEach(closeNamespaces);
 *       test("…", async () => {
 *         const inside = await createNamespace();
 *         …
 */
import { spawnSync } from "node:child_process";
import { describe } from "vitest";
import { Child, type Command, runToEnd } from "../../bench/lib/children.ts";

/** A network namespace. Commands run in it as the user that runs the tests. */
export interface Namespace {
  /** The process that holds it: `ip link … netns PID`, /proc/PID/ns/net. */
  readonly pid: number;
  /** The same command, to be run in the namespace. The prefix replaces itself: the pid stays the program's. */
  command(command: Command): Command;
  /** Runs a command to its end and returns its stdout; throws with its stderr when it fails. */
  run(...command: Command): Promise<string>;
  /** `ip ARGS…` in it. */
  ip(...args: string[]): Promise<string>;
  /** A net sysctl of this namespace, such as "ipv6/conf/all/forwarding". */
  sysctl(name: string, value: string | number): Promise<void>;
  /** Starts a command that is spoken to by lines; ended with the namespace at the latest. `answerMs`: see `Child`. */
  start(command: Command, name?: string, answerMs?: number): Child;
  /** Ends what was started in it, and the namespace. Idempotent. */
  close(): Promise<void>;
}

/** One end of a veth pair. */
export interface VethEnd {
  readonly namespace: Namespace;
  readonly device: string;
  /** With prefix: "10.0.0.1/24", "fd00::1/64". */
  readonly addresses?: readonly string[];
  readonly mac?: string;
}

/** Whether namespaces can be made here; otherwise a sentence that says why not. */
export function whyNoNamespaces(): string | undefined {
  if (process.getuid?.() !== 0) return "not root, which making network namespaces takes";
  const tried = spawnSync("unshare", ["--net", "--", "ip", "link", "show", "lo"], { encoding: "utf8" });
  if (tried.error) return `no unshare here (${tried.error.message})`;
  if (tried.status !== 0) return `unshare --net failed: ${tried.stderr.trim()}`;
  return undefined;
}

export function canMakeNamespaces(): boolean {
  return whyNoNamespaces() === undefined;
}

/** Whether a program is on the PATH. */
export function hasProgram(program: string): boolean {
  return spawnSync("sh", ["-c", `command -v ${program}`]).status === 0;
}

export interface Needs {
  /** Programs that must be on the PATH. */
  readonly programs?: readonly string[];
  /** Anything else: a sentence that says what is missing, or undefined. */
  readonly missing?: () => string | undefined;
}

/**
 * `describe` for what needs namespaces (and `needs`). Where something is missing, the suite is skipped and one line
 * says what was skipped and why.
 */
export function describeInNamespaces(name: string, body: () => void, needs: Needs = {}): void {
  const absent = needs.programs?.find((program) => !hasProgram(program));
  const why = whyNoNamespaces() ?? (absent && `no ${absent} here`) ?? needs.missing?.();
  if (why !== undefined) console.warn(`Skipped: ${name}: ${why}`);
  describe.skipIf(why !== undefined)(name, body);
}

const open = new Set<HeldNamespace>();

class HeldNamespace implements Namespace {
  private readonly holder: Child;
  private readonly children: Child[] = [];

  constructor(holder: Child) {
    this.holder = holder;
    open.add(this);
  }

  get pid(): number {
    return this.holder.pid;
  }

  command(command: Command): Command {
    return ["nsenter", `--net=/proc/${this.holder.pid}/ns/net`, "--", ...command];
  }

  run(...command: Command): Promise<string> {
    this.holder.check();
    return runToEnd(this.command(command));
  }

  ip(...args: string[]): Promise<string> {
    return this.run("ip", ...args);
  }

  async sysctl(name: string, value: string | number): Promise<void> {
    await this.run("sh", "-c", 'printf %s "$2" >"/proc/sys/net/$1"', "sh", name, String(value));
  }

  start(command: Command, name: string = command.join(" "), answerMs = 30_000): Child {
    this.holder.check();
    const child = new Child(this.command(command), { name, answerMs });
    this.children.push(child);
    return child;
  }

  async close(): Promise<void> {
    await Promise.all(this.children.splice(0).map((child) => child.stop()));
    await this.holder.stop();
    open.delete(this);
  }
}

/** A namespace of our own, its loopback up, without duplicate address detection's wait. */
export async function createNamespace(): Promise<Namespace> {
  const holder = new Child(["unshare", "--net", "--", "cat"], { name: "a namespace" });
  await holder.ask<{ held: boolean }>('{"held":true}'); // `cat` answers only once it is inside
  const namespace = new HeldNamespace(holder);
  await namespace.ip("link", "set", "lo", "up");
  for (const scope of ["default", "all"]) await namespace.sysctl(`ipv6/conf/${scope}/accept_dad`, 0);
  return namespace;
}

/** Joins two namespaces (or one to itself) by a veth pair; both ends are up when it returns. */
export async function joinByVeth(left: VethEnd, right: VethEnd): Promise<void> {
  const peer = ["peer", "name", right.device, ...address(right), "netns", String(right.namespace.pid)];
  await left.namespace.ip("link", "add", left.device, ...address(left), "type", "veth", ...peer);
  for (const end of [left, right]) {
    for (const one of end.addresses ?? []) await addAddress(end.namespace, end.device, one);
    await end.namespace.ip("link", "set", end.device, "up");
  }
  await waitForCarrier(left);
  await waitForCarrier(right);
}

function address(end: VethEnd): string[] {
  return end.mac === undefined ? [] : ["address", end.mac];
}

/** Adds an address to a device of the namespace, usable at once. */
export async function addAddress(namespace: Namespace, device: string, prefix: string): Promise<void> {
  const extra = prefix.includes(":") ? ["nodad"] : [];
  await namespace.ip("addr", "add", prefix, "dev", device, ...extra);
}

async function waitForCarrier(end: VethEnd): Promise<void> {
  await eventually(`${end.device} is up`, async () => {
    const [link] = JSON.parse(await end.namespace.ip("-json", "link", "show", end.device)) as [
      { operstate: string },
    ];
    return link.operstate === "UP";
  });
}

/** Waits for something that no event tells, asking again; fails with its name after 20 s. */
export async function eventually(what: string, condition: () => Promise<boolean> | boolean): Promise<void> {
  const lastMs = performance.now() + 20_000;
  while (!(await condition())) {
    if (performance.now() > lastMs) throw new Error(`never came true: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Ends every namespace that is still open: for `afterEach` or `afterAll`. */
export async function closeNamespaces(): Promise<void> {
  for (const namespace of [...open]) await namespace.close();
}
