/**
 * A bad line as users describe it: the options of `createWire`, `wire.set` and `createVirtualWire`, checked.
 *
 * Layer 3, pure. Probabilities and milliseconds come in, the whole numbers of `impairment.ts` go out; every error names
 * the option, what it was and what it must be.
 */

import { ApoError } from "../layer1-app/errors.ts";
import { certain, type ImpairmentSettings } from "./impairment.ts";

/** A two-state line: a good state and a bad one, each with its own loss. Probabilities per packet. */
export interface GilbertElliott {
  /** From good to bad. */
  readonly p: number;
  /** From bad to good: a bad spell lasts 1/r packets on average. */
  readonly r: number;
  /** Loss in the good state (0). */
  readonly lossGood?: number;
  /** Loss in the bad state (1). */
  readonly lossBad?: number;
}

/**
 * What the line does to packets. Probabilities are 0 to 1 and per packet; every direction between two plugs is a line
 * of its own.
 */
export interface Impairments {
  /** Every packet takes at least so long (0); fractions of a millisecond are fine, 60,000 the most. */
  readonly delayMs?: number;
  /** And up to so much more, drawn for each (0). Packets overtake each other, unless `keepOrder`. */
  readonly jitterMs?: number;
  /** How it is drawn: all values alike, or a sum of four such draws, which is near to normal ("uniform"). */
  readonly jitterShape?: "uniform" | "normal";
  /** Jitter never lets a packet overtake another (false). */
  readonly keepOrder?: boolean;
  /** Loses packets, each for itself (0). */
  readonly loss?: number;
  /** Loses packets in bursts. To end that: `{ p: 0, r: 1 }`. */
  readonly gilbertElliott?: GilbertElliott;
  /** Holds packets back, so that later ones overtake them (0). */
  readonly reorder?: number;
  /** For how long (1). */
  readonly reorderMs?: number;
  /** Delivers packets twice, each with its own jitter (0). */
  readonly duplicate?: number;
  /** Flips one bit anywhere in the packet (0). */
  readonly corrupt?: number;
  /** Packets leave one after the other at this rate: 1,000 to 10^12; 0 for no limit (0). */
  readonly rateBitsPerSecond?: number;
  /** Bytes that may wait for it; what comes then is dropped (256 KiB). */
  readonly queueBytes?: number;
}

/** Every name of `Impairments`. */
export const impairmentNames: readonly (keyof Impairments)[] = [
  "delayMs",
  "jitterMs",
  "jitterShape",
  "keepOrder",
  "loss",
  "gilbertElliott",
  "reorder",
  "reorderMs",
  "duplicate",
  "corrupt",
  "rateBitsPerSecond",
  "queueBytes",
];

const timeMaxMs = 60_000;
const rateMin = 1000;
const rateMax = 1e12;
const queueBytesMin = 1280;
const queueBytesMax = 2 ** 28;

/** A piece of copper. */
export const unimpaired: ImpairmentSettings = {
  seedLow: 1,
  seedHigh: 0,
  delayUs: 0,
  jitterUs: 0,
  jitterIsNormal: 0,
  keepsOrder: 0,
  loss: 0,
  burstEnter: 0,
  burstLeave: 0,
  burstLossGood: 0,
  burstLossBad: 0,
  reorder: 0,
  reorderUs: 1000,
  duplicate: 0,
  corrupt: 0,
  rateBitsPerSecond: 0,
  queueBytes: 2 ** 18,
  mtu: 0,
};

/** `base` with what the options say; `verb` is who was called, for the errors. Throws `EINVAL`. */
export function impair(verb: string, options: Impairments, base: ImpairmentSettings): ImpairmentSettings {
  const check = new OptionCheck(verb);
  const { gilbertElliott: burst, jitterShape, keepOrder } = options;
  const settings: Record<string, number> = { ...base };
  const put = (field: keyof ImpairmentSettings, value: number | undefined): void => {
    if (value !== undefined) settings[field] = value;
  };
  put("delayUs", check.time("delayMs", options.delayMs));
  put("jitterUs", check.time("jitterMs", options.jitterMs));
  put("reorderUs", check.time("reorderMs", options.reorderMs));
  put("jitterIsNormal", check.choice("jitterShape", jitterShape, ["uniform", "normal"]));
  put("keepsOrder", check.choice("keepOrder", keepOrder, [false, true]));
  put("loss", check.probability("loss", options.loss));
  put("reorder", check.probability("reorder", options.reorder));
  put("duplicate", check.probability("duplicate", options.duplicate));
  put("corrupt", check.probability("corrupt", options.corrupt));
  put("queueBytes", check.whole("queueBytes", options.queueBytes, queueBytesMin, queueBytesMax));
  if (options.rateBitsPerSecond === 0) put("rateBitsPerSecond", 0);
  else
    put("rateBitsPerSecond", check.whole("rateBitsPerSecond", options.rateBitsPerSecond, rateMin, rateMax));
  if (burst !== undefined) {
    check.isObject("gilbertElliott", burst, "{ p, r, lossGood, lossBad }");
    put("burstEnter", check.needed("gilbertElliott.p", burst.p));
    put("burstLeave", check.needed("gilbertElliott.r", burst.r));
    put("burstLossGood", check.probability("gilbertElliott.lossGood", burst.lossGood ?? 0));
    put("burstLossBad", check.probability("gilbertElliott.lossBad", burst.lossBad ?? 1));
  }
  return settings as ImpairmentSettings;
}

/** The seed's two words. Throws `EINVAL`. */
export function seedWords(verb: string, seed: number): { seedLow: number; seedHigh: number } {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new ApoError(
      "EINVAL",
      `${verb}: seed must be a whole number from 0 to 2^53 - 1, not ${show(seed)}`,
    );
  }
  return { seedLow: seed >>> 0, seedHigh: Math.floor(seed / 2 ** 32) };
}

/** Refuses names that are not among `known`. Throws `EINVAL`. */
export function checkOptionNames(verb: string, options: object, known: readonly string[]): void {
  new OptionCheck(verb).isObject("its argument", options, "an object of options");
  for (const name of Object.keys(options)) {
    if (!known.includes(name)) {
      throw new ApoError("EINVAL", `${verb}: unknown option "${name}": there are ${known.join(", ")}`);
    }
  }
}

class OptionCheck {
  private readonly verb: string;

  constructor(verb: string) {
    this.verb = verb;
  }

  probability(name: string, value: number | undefined): number | undefined {
    return value === undefined ? undefined : this.needed(name, value);
  }

  /** A probability that may not be left out. */
  needed(name: string, value: number): number {
    if (typeof value === "number" && value >= 0 && value <= 1) return Math.round(value * certain);
    throw this.wrong(name, value, "a number from 0 to 1");
  }

  time(name: string, value: number | undefined): number | undefined {
    if (value === undefined) return undefined;
    if (typeof value === "number" && value >= 0 && value <= timeMaxMs) return Math.round(value * 1000);
    throw this.wrong(name, value, `milliseconds from 0 to ${timeMaxMs}`);
  }

  whole(name: string, value: number | undefined, least: number, most: number): number | undefined {
    if (value === undefined) return undefined;
    if (Number.isInteger(value) && value >= least && value <= most) return value;
    throw this.wrong(name, value, `a whole number from ${least} to ${most}`);
  }

  /** The value's place in the list. */
  choice<Value>(name: string, value: Value | undefined, choices: readonly Value[]): number | undefined {
    if (value === undefined) return undefined;
    const place = choices.indexOf(value);
    if (place >= 0) return place;
    throw this.wrong(name, value, choices.map((one) => JSON.stringify(one)).join(" or "));
  }

  isObject(name: string, value: unknown, wanted: string): void {
    if (typeof value !== "object" || value === null) throw this.wrong(name, value, wanted);
  }

  private wrong(name: string, value: unknown, wanted: string): ApoError {
    return new ApoError("EINVAL", `${this.verb}: ${name} must be ${wanted}, not ${show(value)}`);
  }
}

function show(value: unknown): string {
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}
