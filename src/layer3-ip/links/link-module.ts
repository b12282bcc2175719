/**
 * What one link's file in TypeScript has: its options turned into settings, its failures into words.
 *
 * Layer 3. A link is a file here that exports these two functions, a line in `index.ts`, and its native half.
 */

import type { ApoError } from "../../layer1-app/errors.ts";
import type { LinkOptions } from "./link-options.ts";

/** What the native half of a link is opened with; it reads them by name (`LinkSettings` in links/link_kinds.h). */
export type NativeSettings = Record<string, number | string | boolean>;

/** The step of opening a link that failed, and how: "TUNSETIFF" and 1 (EPERM). */
export interface LinkFailure {
  readonly errno: number;
  readonly step: string;
}

export interface LinkModule {
  /** Checks the link's own options and turns them into settings. Throws `ApoError` with code `EINVAL`. */
  settings(options: LinkOptions): NativeSettings;
  /** What a failure to open means to a user, and what to do about it. */
  explain(failure: LinkFailure, options: LinkOptions): ApoError;
}
