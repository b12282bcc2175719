/**
 * The UDP options that an app gives to `opens`: their limits, and what `host` cannot do.
 *
 * Layer 1, pure. What each means is in layer 2's `raw/udp-options.ts`.
 */

import { isIP } from "node:net";
import {
  defaultUdpOptions,
  type GroupJoin,
  type Protocol,
  type UdpOptions,
} from "../layer2-transport/index.ts";
import { ApoError } from "./errors.ts";
import { checkNames, invalid, whole } from "./option-checks.ts";
import type { JoinSettings, UdpSettings } from "./types.ts";

/** Names that UDP alone has; `ttl` and `dscp` it shares with TCP. */
export const udpOnlyNames = ["join", "fragment"] as const;
const sharedNames = ["ttl", "dscp"] as const;
/** Groups of one listener. */
const joinsMost = 32;

/** Whether the option is UDP's, too. */
export function isUdpName(name: string): boolean {
  return (sharedNames as readonly string[]).includes(name);
}

/** Throws `EINVAL`; on `host` `ENOTSUP` for what the kernel hides. */
export function checkUdpSettings(
  given: UdpSettings,
  protocol: Protocol,
  isClient: boolean,
  isHost: boolean,
): UdpOptions {
  if (protocol === "tcp") {
    const strange = udpOnlyNames.find((name) => given[name] !== undefined);
    if (strange) throw new ApoError("EINVAL", `opens: ${strange} is for udp, this is tcp`);
    return defaultUdpOptions;
  }
  const named = [...udpOnlyNames, ...sharedNames].find((name) => given[name] !== undefined);
  if (named !== undefined && isHost) {
    throw new ApoError(
      "ENOTSUP",
      `opens: link "host" cannot set ${named} for ${protocol}: leave it out, or use a raw link ` +
        "(mem, fd, tun, packet, xdp)",
    );
  }
  const { fragment = true, join = [] } = given;
  if (typeof fragment !== "boolean") throw invalid("opens", "fragment", fragment, "true or false");
  if (join.length > 0 && (protocol !== "udp" || isClient)) {
    throw new ApoError("EINVAL", "opens: join is for udp servers: opens({ protocol, port, join })");
  }
  return {
    ttl: whole("opens", "ttl", given.ttl, 0, 1, 255),
    dscp: whole("opens", "dscp", given.dscp, 0, 0, 63),
    fragment,
    join: checkJoins(join),
  };
}

function checkJoins(join: unknown): GroupJoin[] {
  if (!Array.isArray(join) || join.length > joinsMost) {
    throw invalid("opens", "join", join, `an array of at most ${joinsMost} groups`);
  }
  return join.map((one: JoinSettings) => {
    if (typeof one === "object" && one !== null) checkNames("opens: join", one, ["group", "source"]);
    const { group, source } = typeof one === "string" ? { group: one, source: undefined } : (one ?? {});
    if (!isGroup(group))
      throw invalid("opens", "join", group, 'a multicast address, as "239.1.2.3" or "ff15::1234"');
    if (source === undefined) return { group };
    if (typeof source !== "string" || isIP(source) !== isIP(group) || isGroup(source)) {
      throw invalid(
        "opens",
        "join",
        source,
        `a source of ${group}: an address of one host, of the same IP version`,
      );
    }
    return { group, source };
  });
}

function isGroup(address: unknown): address is string {
  if (typeof address !== "string") return false;
  const version = isIP(address);
  if (version === 6) return /^ff/i.test(address) && !address.includes("%");
  const first = Number(address.split(".", 1)[0]);
  return version === 4 && first >= 224 && first <= 239;
}
