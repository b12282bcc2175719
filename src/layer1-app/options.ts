/**
 * Checks what `createRuntime` and `opens` are given, and fills in the defaults.
 *
 * Layer 1, pure. Every error names the option, what it was, and what it must be.
 */

import { availableParallelism } from "node:os";
import {
  type ConnectionRules,
  type FramingKind,
  framingKinds,
  maxAppWorkers,
  maxWorkers,
  type Protocol,
  protocols,
} from "../layer2-transport/index.ts";
import { ApoError } from "./errors.ts";
import { framing as builtIn } from "./framing.ts";
import type { ConnectOptions, FramingFunction, Handlers, ListenOptions, RuntimeOptions } from "./types.ts";

/** `opens` in the runtime's own words. */
export interface Opening {
  readonly rules: ConnectionRules;
  readonly handlers: Handlers;
  readonly module: string | undefined;
  readonly framingFunction: FramingFunction | undefined;
  /** "tcp port 7" or "tcp to 192.0.2.1:7". */
  readonly name: string;
  readonly server:
    | { readonly address: string | undefined; readonly port: number; readonly limit: number }
    | undefined;
  readonly client:
    | {
        readonly address: string;
        readonly port: number;
        readonly connectMs: number;
        readonly news: Uint8Array | string | undefined;
      }
    | undefined;
}

const runtimeOptionNames = ["link", "workers", "appWorkers", "address", "wire", "poolBytes"];
const handlerNames = ["connected", "request", "closed", "alarm"] as const;
const commonNames = ["protocol", "recvlen", "framing", "module", "idleMs", "waiting", "nodelay", "sendlen"];
const serverNames = ["port", "address", "backlog"];
const clientNames = ["to", "news", "connectMs"];
const connectionsPerBacklogUnit = 256;

export interface RuntimeSettings {
  readonly link: "host" | "mem";
  readonly workers: number;
  readonly appWorkers: number;
  readonly poolBytes: number;
  readonly address: string | undefined;
  readonly wire: unknown;
}

export function checkRuntimeOptions(options: RuntimeOptions): RuntimeSettings {
  checkNames("createRuntime", options, runtimeOptionNames);
  const half = Math.floor(availableParallelism() / 2);
  const link = options.link ?? "host";
  if (link !== "host" && link !== "mem") throw invalid("createRuntime", "link", link, '"host" or "mem"');
  return {
    link,
    workers: whole("createRuntime", "workers", options.workers, clamp(half, maxWorkers), 1, maxWorkers),
    appWorkers: whole(
      "createRuntime",
      "appWorkers",
      options.appWorkers,
      clamp(half, maxAppWorkers),
      1,
      maxAppWorkers,
    ),
    poolBytes: whole("createRuntime", "poolBytes", options.poolBytes, 64 * 2 ** 20, 2 ** 20, 2 ** 31),
    address: options.address,
    wire: options.wire,
  };
}

export function checkOpenOptions(options: ListenOptions | ConnectOptions): Opening {
  checkNames("opens", options, [...handlerNames, ...commonNames, ...serverNames, ...clientNames]);
  const protocol = options.protocol;
  if (!protocols.includes(protocol)) throw invalid("opens", "protocol", protocol, '"tcp", "udp" or "icmp"');
  const isClient = options.to !== undefined;
  if (isClient === (options.port !== undefined) && protocol !== "icmp") {
    throw new ApoError("EINVAL", "opens: give either port (a server) or to (a client)");
  }
  const own = isClient ? serverNames : clientNames;
  const strange = own.find((name) => (options as unknown as Record<string, unknown>)[name] !== undefined);
  if (strange) {
    throw new ApoError(
      "EINVAL",
      `opens: ${strange} is for a ${isClient ? "server" : "client"}, this is the other`,
    );
  }
  const handlers = checkHandlers(options);
  const framing = checkFraming(options);
  const server = isClient ? undefined : checkServer(options as ListenOptions);
  const client = isClient ? checkClient(options as ConnectOptions) : undefined;
  const name = client
    ? `${protocol} to ${client.address}:${client.port}`
    : `${protocol} port ${server?.port}`;
  const module = options.module === undefined ? undefined : String(options.module);
  if (module !== undefined && framing.framingFunction) {
    throw new ApoError(
      "EINVAL",
      "opens: with module, export the framing function as `framing` from the module",
    );
  }
  const rules = checkRules(options, protocol, framing.kind);
  return { rules, handlers, module, framingFunction: framing.framingFunction, name, server, client };
}

function checkRules(
  options: ListenOptions | ConnectOptions,
  protocol: Protocol,
  framing: FramingKind,
): ConnectionRules {
  const { nodelay = true } = options;
  if (typeof nodelay !== "boolean") throw invalid("opens", "nodelay", nodelay, "true or false");
  return {
    protocol,
    framing,
    recvlen: whole("opens", "recvlen", options.recvlen, 65_536, 1, 2 ** 30),
    sendlen: whole("opens", "sendlen", options.sendlen, 16 * 2 ** 20, 1, 2 ** 31 - 1),
    idleMs: whole("opens", "idleMs", options.idleMs, 60_000, 0, 2 ** 31 - 1),
    waiting: whole("opens", "waiting", options.waiting, 64, 0, 2 ** 20),
    nodelay,
  };
}

function checkServer(options: ListenOptions): NonNullable<Opening["server"]> {
  const { address, protocol } = options;
  if (address !== undefined && (typeof address !== "string" || address === "")) {
    throw invalid("opens", "address", address, "an IP address or a host name");
  }
  const port = protocol === "icmp" ? 0 : whole("opens", "port", options.port, undefined, 0, 65_535);
  const backlog = whole("opens", "backlog", options.backlog, 16, 1, 65_536);
  return { address, port, limit: backlog * connectionsPerBacklogUnit };
}

function checkClient(options: ConnectOptions): NonNullable<Opening["client"]> {
  const { address, port } = parseTarget(options.to, options.protocol);
  const { news } = options;
  if (news !== undefined && typeof news !== "string" && !(news instanceof Uint8Array)) {
    throw invalid("opens", "news", news, "bytes or a string");
  }
  const connectMs = whole("opens", "connectMs", options.connectMs, 10_000, 1, 2 ** 31 - 1);
  return { address, port, connectMs, news: typeof news === "string" ? news : news && new Uint8Array(news) };
}

/** "host:port", "[v6]:port", or the two apart. ICMP has no port. */
function parseTarget(to: ConnectOptions["to"], protocol: Protocol): { address: string; port: number } {
  const shape = protocol === "icmp" ? '"host"' : '"host:port", "[v6]:port" or { address, port }';
  if (typeof to === "object" && to !== null) {
    if (typeof to.address !== "string" || to.address === "") throw invalid("opens", "to", to, shape);
    return {
      address: to.address,
      port: protocol === "icmp" ? 0 : whole("opens", "to", to.port, undefined, 1, 65_535),
    };
  }
  if (typeof to !== "string" || to === "") throw invalid("opens", "to", to, shape);
  if (protocol === "icmp") return { address: to.replace(/^\[(.*)\]$/, "$1"), port: 0 };
  const parts = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(to);
  const address = parts?.[1] ?? parts?.[2];
  const port = Number(parts?.[3]);
  if (!address || !(port >= 1 && port <= 65_535)) throw invalid("opens", "to", to, shape);
  return { address, port };
}

function checkHandlers(options: ListenOptions | ConnectOptions): Handlers {
  for (const name of handlerNames) {
    const handler = options[name];
    if (handler === undefined) continue;
    if (typeof handler !== "function") throw invalid("opens", name, handler, "a function");
    if (options.module !== undefined) {
      throw new ApoError(
        "EINVAL",
        `opens: give either ${name} or module, not both (the module exports its handlers)`,
      );
    }
  }
  return options;
}

function checkFraming(options: ListenOptions | ConnectOptions): {
  kind: FramingKind;
  framingFunction: FramingFunction | undefined;
} {
  const { framing } = options;
  if (framing === undefined) return { kind: "raw", framingFunction: undefined };
  if (typeof framing === "function") {
    const known = Object.entries(builtIn).find(([, make]) => (make as unknown) === framing);
    if (known)
      throw new ApoError("EINVAL", `opens: framing: write framing.${known[0]}(), it is a function to call`);
    const stream = options.protocol === "tcp";
    return { kind: stream ? "chunks" : "raw", framingFunction: stream ? framing : undefined };
  }
  const kind = framing?.kind;
  if (kind === undefined || (kind as string) === "chunks" || !framingKinds.includes(kind)) {
    throw invalid(
      "opens",
      "framing",
      framing,
      "one of the functions of `framing` called, or a function of your own",
    );
  }
  return { kind, framingFunction: undefined };
}

function clamp(count: number, most: number): number {
  return Math.min(most, Math.max(1, count));
}

function whole(
  verb: string,
  name: string,
  value: unknown,
  unset: number | undefined,
  least: number,
  most: number,
): number {
  if (value === undefined && unset !== undefined) return unset;
  if (Number.isInteger(value) && (value as number) >= least && (value as number) <= most)
    return value as number;
  throw invalid(verb, name, value, `a whole number from ${least} to ${most}`);
}

function invalid(verb: string, name: string, value: unknown, wanted: string): ApoError {
  const shown = typeof value === "string" ? JSON.stringify(value) : show(value);
  return new ApoError("EINVAL", `${verb}: ${name} must be ${wanted}, not ${shown}`);
}

function show(value: unknown): string {
  if (typeof value === "object" && value !== null) {
    try {
      return JSON.stringify(value).slice(0, 80);
    } catch {
      return "an object";
    }
  }
  return String(value);
}

function checkNames(verb: string, options: object, known: readonly string[]): void {
  if (typeof options !== "object" || options === null) {
    throw new ApoError("EINVAL", `${verb} takes an object of options, not ${show(options)}`);
  }
  for (const name of Object.keys(options)) {
    if (known.includes(name)) continue;
    const near = nearest(name, known);
    const hint = near ? `did you mean ${near}?` : `there are ${known.join(", ")}`;
    throw new ApoError("EINVAL", `${verb}: unknown option ${JSON.stringify(name)}: ${hint}`);
  }
}

/** The known name that is at most two edits away. */
function nearest(name: string, known: readonly string[]): string | undefined {
  const close = known.map((other) => ({
    other,
    edits: editsBetween(name.toLowerCase(), other.toLowerCase()),
  }));
  close.sort((a, b) => a.edits - b.edits);
  const best = close[0];
  return best && best.edits <= 2 ? best.other : undefined;
}

function editsBetween(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const swap = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(swap, (row[j] as number) + 1, (next[j - 1] as number) + 1));
    }
    row = next;
  }
  return row[b.length] as number;
}
