/**
 * Options of `createRuntime` from the environment: an app runs unchanged on another link.
 *
 * Layer 1, pure. `apo run` sets these variables. An app's own options win; an app that names its link takes none of
 * the link's options from here.
 */

import { type LinkOptions, type LinkRoute, linkOptionNames } from "../layer2-transport/index.ts";
import { ApoError } from "./errors.ts";
import type { RuntimeOptions } from "./types.ts";

type OwnName = Exclude<keyof RuntimeOptions, keyof LinkOptions>;
/** Every option that text can be: not `wire`, `guard` and `tcp`, which are objects. */
export type EnvironmentOption = Exclude<keyof RuntimeOptions, "wire" | "guard" | "tcp">;

/** APO_LINK, APO_HOST_ADDRESS, …: the option in capitals. */
export function variableOf(option: string): string {
  return `APO_${option.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;
}

const asText = (text: string): unknown => text;
const asNumber = (text: string): unknown => (/^\d{1,15}$/.test(text) ? Number(text) : text);
const switches: Readonly<Record<string, unknown>> = { true: true, false: false, auto: "auto" };
const asSwitch = (text: string): unknown => switches[text] ?? asNumber(text);

/** How each option's text is read; what is not such text is passed on as it is, for the check to refuse. */
const readers: Readonly<Record<EnvironmentOption, (text: string) => unknown>> = {
  link: asText,
  workers: asNumber,
  appWorkers: asNumber,
  poolBytes: asNumber,
  memoryBytes: asNumber,
  address: asText,
  prefixes: asText,
  mtu: asNumber,
  queues: asNumber,
  pcap: asText,
  fd: asNumber,
  vnetHeader: asSwitch,
  device: asText,
  hostAddress: asText,
  interface: asText,
  mac: asText,
  gateway: asText,
  routes: asRoutes,
  xdpMode: asText,
  zeroCopy: asSwitch,
};

export const environmentOptions = Object.keys(readers) as EnvironmentOption[];
const ownOptions: readonly string[] = [
  "workers",
  "appWorkers",
  "poolBytes",
  "memoryBytes",
] satisfies OwnName[];

/** "198.51.100.0/24 via 192.0.2.1, 203.0.113.0/24 via 192.0.2.9" */
function asRoutes(text: string): unknown {
  return text.split(",").map((part): LinkRoute => {
    const [to = "", via = ""] = part.trim().split(/\s+via\s+/);
    return { to, via };
  });
}

type Environment = Readonly<Record<string, string | undefined>>;

/** The options that the environment has. */
export function optionsOfEnvironment(environment: Environment): RuntimeOptions {
  const found: Record<string, unknown> = {};
  for (const option of environmentOptions) {
    const text = environment[variableOf(option)];
    if (text !== undefined && text !== "") found[option] = readers[option](text);
  }
  return found as RuntimeOptions;
}

/** What an app gave, and for what it did not, what the environment says. */
export function withEnvironment(options: RuntimeOptions, environment: Environment): RuntimeOptions {
  if (typeof options !== "object" || options === null) return options;
  const given = optionsOfEnvironment(environment);
  if (options.link === undefined) return { ...given, ...withoutUndefined(options) };
  const { pcap } = given;
  const own = Object.fromEntries(Object.entries(given).filter(([name]) => ownOptions.includes(name)));
  const captured = pcap !== undefined && options.link !== "host" ? { pcap } : {};
  return { ...own, ...captured, ...withoutUndefined(options) };
}

/** Without the options that are there and undefined: they would hide what the environment has. */
function withoutUndefined(options: RuntimeOptions): RuntimeOptions {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

/** Does what an error about options may come from; the error then says which of them the environment gave. */
export function namingEnvironment<T>(environment: Environment, check: () => T): T {
  try {
    return check();
  } catch (error) {
    const given = [...linkOptionNames, "link", ...ownOptions].map(variableOf);
    const names = given.filter((name) => (environment[name] ?? "") !== "");
    if (!(error instanceof ApoError) || names.length === 0) throw error;
    const hint = `${error.message} (the environment has ${names.join(", ")})`;
    throw new ApoError(error.code, hint, { cause: error });
  }
}
