/**
 * The raw links, by name: the one list in TypeScript that a new link is added to.
 *
 * Layer 3. The list's twin is links/link_kinds.cc.
 */

import { ApoError } from "../../layer1-app/errors.ts";
import * as fd from "./fd.ts";
import type { LinkModule } from "./link-module.ts";
import type { RawLinkKind } from "./link-options.ts";
import * as mem from "./mem.ts";
import * as packet from "./packet.ts";
import * as tun from "./tun.ts";
import * as xdp from "./xdp.ts";

const linkModules: Partial<Record<RawLinkKind, LinkModule>> = { mem, fd, tun, packet, xdp };

/** A link's half in TypeScript. Throws `ENOTSUP` for one that this build does not have. */
export function linkModule(kind: RawLinkKind): LinkModule {
  const found = linkModules[kind];
  if (!found) throw new ApoError("ENOTSUP", `link "${kind}" is not in this build`);
  return found;
}
