/**
 * Checks what `opens` is given, and fills in the defaults.
 *
 * Layer 1, pure. Every error names the option, what it was, and what it must be.
 */

import {
  type ConnectionRules,
  type FramingKind,
  framingKinds,
  type Protocol,
  protocols,
  type TcpOptions,
} from "../layer2-transport/index.ts";
import { ApoError } from "./errors.ts";
import { framing as builtIn } from "./framing.ts";
import { checkNames, invalid, whole } from "./option-checks.ts";
import { defaultSendlen } from "./runtime-options.ts";
import { checkSendBuffer, checkTcpSettings, hostTcpOptions, tcpSettingNames } from "./tcp-options.ts";
import type { ConnectOptions, FramingFunction, GroupOptions, Handlers, ListenOptions } from "./types.ts";
import { checkUdpSettings, isUdpName, udpOnlyNames } from "./udp-options.ts";

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
        /** Many at once. */
        readonly group: { readonly connections: number; readonly rate: number } | undefined;
      }
    | undefined;
  /** The module's handlers run in the layer-2 workers. */
  readonly inWorkers: boolean;
}

export type OpenOptions = ListenOptions | ConnectOptions | GroupOptions;

const handlerNames = ["connected", "request", "closed", "alarm"] as const;
const commonNames = [
  "protocol",
  "recvlen",
  "framing",
  "module",
  "placement",
  "idleMs",
  "waiting",
  "sendlen",
  "sendBuffer",
];
const serverNames = ["port", "address", "backlog"];
const clientNames = ["to", "news", "connectMs", "connections", "rate"];
const connectionsPerBacklogUnit = 256;

/** What holds where `opens` says nothing, and what the link can do. */
export interface OpenGround {
  readonly tcp: TcpOptions;
  readonly sendlen: number;
  readonly isHost: boolean;
}

const plainGround: OpenGround = { tcp: hostTcpOptions, sendlen: defaultSendlen, isHost: true };

export function checkOpenOptions(options: OpenOptions, ground = plainGround): Opening {
  checkNames("opens", options, [
    ...handlerNames,
    ...commonNames,
    ...serverNames,
    ...clientNames,
    ...tcpSettingNames,
    ...udpOnlyNames,
  ]);
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
  const client = isClient ? checkClient(options as ConnectOptions | GroupOptions) : undefined;
  const name = client
    ? `${protocol} to ${client.address}:${client.port}`
    : `${protocol} port ${server?.port}`;
  const module = options.module === undefined ? undefined : String(options.module);
  const inWorkers = checkPlacement(options);
  if (module !== undefined && framing.framingFunction) {
    throw new ApoError(
      "EINVAL",
      "opens: with module, export the framing function as `framing` from the module",
    );
  }
  const rules = checkRules(options, protocol, framing.kind, ground);
  return {
    rules,
    handlers,
    module,
    framingFunction: framing.framingFunction,
    name,
    server,
    client,
    inWorkers,
  };
}

function checkRules(
  options: OpenOptions,
  protocol: Protocol,
  framing: FramingKind,
  ground: OpenGround,
): ConnectionRules {
  const given = options as unknown as Record<string, unknown>;
  const strange =
    protocol === "tcp"
      ? undefined
      : tcpSettingNames.find((name) => given[name] !== undefined && !isUdpName(name));
  if (strange) throw new ApoError("EINVAL", `opens: ${strange} is for tcp, this is ${protocol}`);
  return {
    protocol,
    framing,
    recvlen: whole("opens", "recvlen", options.recvlen, 65_536, 1, 2 ** 30),
    sendlen: checkSendBuffer("opens", options.sendBuffer, options.sendlen) ?? ground.sendlen,
    idleMs: whole("opens", "idleMs", options.idleMs, 60_000, 0, 2 ** 31 - 1),
    waiting: whole("opens", "waiting", options.waiting, 64, 0, 2 ** 20),
    tcp: protocol === "tcp" ? checkTcpSettings("opens", options, ground.tcp, ground.isHost) : ground.tcp,
    udp: checkUdpSettings(options, protocol, options.to !== undefined, ground.isHost),
  };
}

/** Whether the handlers run in the layer-2 workers. */
function checkPlacement({ placement = "app", module }: OpenOptions): boolean {
  if (placement !== "app" && placement !== "worker") {
    throw invalid("opens", "placement", placement, '"app" or "worker"');
  }
  if (placement === "app" || module !== undefined) return placement === "worker";
  throw new ApoError("EINVAL", 'opens: placement "worker" is for handlers in a module: give module');
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

function checkClient(options: ConnectOptions | GroupOptions): NonNullable<Opening["client"]> {
  const { address, port } = parseTarget(options.to, options.protocol);
  const { news } = options;
  if (news !== undefined && typeof news !== "string" && !(news instanceof Uint8Array)) {
    throw invalid("opens", "news", news, "bytes or a string");
  }
  const connectMs = whole("opens", "connectMs", options.connectMs, 10_000, 1, 2 ** 31 - 1);
  const copy = typeof news === "string" ? news : news && new Uint8Array(news);
  return { address, port, connectMs, news: copy, group: checkGroup(options) };
}

/** Many connections at once; undefined: one. */
function checkGroup(options: OpenOptions): { connections: number; rate: number } | undefined {
  const { connections, rate } = options as GroupOptions;
  if (connections === undefined) {
    if (rate === undefined) return undefined;
    throw new ApoError("EINVAL", "opens: rate is for many connections at once: give connections");
  }
  return {
    connections: whole("opens", "connections", connections, undefined, 1, 2 ** 24),
    rate: whole("opens", "rate", rate, 0, 0, 10_000_000),
  };
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

function checkHandlers(options: OpenOptions): Handlers {
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

function checkFraming(options: OpenOptions): {
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
