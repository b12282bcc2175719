/**
 * Checks what `createRuntime` is given, and fills in the defaults.
 *
 * Layer 1, pure. What a link's options must be is layer 3's to say; which link each is for is checked here.
 */

import { availableParallelism, totalmem } from "node:os";
import {
  checkLinkOptions,
  checkOptionsBelong,
  checkTcpGuardOptions,
  defaultTcpOptions,
  type LinkSettings,
  linkKinds,
  linkOptionNames,
  maxAppWorkers,
  maxWorkers,
  type TcpGuardSettings,
  type TcpOptions,
} from "../layer2-transport/index.ts";
import { ApoError } from "./errors.ts";
import { checkNames, invalid, whole } from "./option-checks.ts";
import { checkSendBuffer, checkTcpSettings, hostTcpOptions, tcpSettingNames } from "./tcp-options.ts";
import type { RuntimeOptions } from "./types.ts";

const ownNames = ["link", "workers", "appWorkers", "poolBytes", "memoryBytes", "tcp"];

/** Bytes that may be queued for one connection. */
export const defaultSendlen = 16 * 2 ** 20;

export interface RuntimeSettings {
  /** The link's, on every one but `host`. */
  readonly link: LinkSettings | undefined;
  readonly workers: number;
  readonly appWorkers: number;
  readonly poolBytes: number;
  /** What holds for connections where `opens` says nothing. */
  readonly tcp: TcpOptions;
  readonly sendlen: number;
  readonly tcpGuard: TcpGuardSettings;
}

/** What asking for the guard leads to on the `host` link. */
export function noGuardOnHost(): ApoError {
  return new ApoError(
    "ENOTSUP",
    'guard: link "host" has none, its packets pass the kernel alone: use nftables there, or a raw link ' +
      "(mem, fd, tun, packet, xdp)",
  );
}

export function checkRuntimeOptions(options: RuntimeOptions): RuntimeSettings {
  checkNames("createRuntime", options, [...ownNames, ...linkOptionNames]);
  const { link = "host", workers, appWorkers, poolBytes, memoryBytes, tcp = {}, ...given } = options;
  if (!linkKinds.includes(link)) {
    throw invalid("createRuntime", "link", link, `one of ${linkKinds.map((one) => `"${one}"`).join(", ")}`);
  }
  if (link === "host" && given.guard !== undefined) throw noGuardOnHost();
  const linkOptions = { ...given };
  let tcpGuard = {};
  if (typeof given.guard === "object" && given.guard?.tcp !== undefined) {
    // The rest is layer 3's to check.
    const { tcp: itsTcp, ...listsAndLimits } = given.guard;
    tcpGuard = itsTcp;
    linkOptions.guard = listsAndLimits;
  }
  if (link === "host") checkOptionsBelong(link, linkOptions);
  checkNames("createRuntime: tcp", tcp, [...tcpSettingNames, "sendBuffer"]);
  const isHost = link === "host";
  const base = isHost ? hostTcpOptions : defaultTcpOptions;
  const half = Math.max(1, Math.floor(availableParallelism() / 2));
  return {
    link: link === "host" ? undefined : checkLinkOptions(link, linkOptions),
    workers: whole("createRuntime", "workers", workers, Math.min(half, maxWorkers), 1, maxWorkers),
    appWorkers: whole(
      "createRuntime",
      "appWorkers",
      appWorkers,
      Math.min(half, maxAppWorkers),
      1,
      maxAppWorkers,
    ),
    poolBytes: whole("createRuntime", "poolBytes", poolBytes, 64 * 2 ** 20, 2 ** 20, 2 ** 31),
    tcp: checkTcpSettings("createRuntime: tcp", tcp, base, isHost),
    sendlen: checkSendBuffer("createRuntime: tcp", tcp.sendBuffer, undefined) ?? defaultSendlen,
    tcpGuard: checkTcpGuardOptions(
      tcpGuard,
      whole("createRuntime", "memoryBytes", memoryBytes, halfTheMemory(), 2 ** 20, 2 ** 40),
    ),
  };
}

/** Of the machine, or of what this process may have of it. */
function halfTheMemory(): number {
  const allowed = process.constrainedMemory();
  const all = totalmem();
  return Math.floor((allowed > 0 && allowed < all ? allowed : all) / 2);
}
