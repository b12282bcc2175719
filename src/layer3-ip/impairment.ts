/**
 * What a bad line does to packets: the twin of native/rawsock/links/impairment.h, which decides alike to the last bit.
 *
 * Layer 3, pure: it decides, and somebody else (`virtual-wire.ts`) delivers. Whole numbers only, so that the two can be
 * compared exactly; a test does. What the options mean, and their errors, is in `impairment-options.ts`.
 */

import { RandomStream, SeedMixer, scaleWord } from "./random-stream.ts";

/** The settings' fields, in the order in which native code takes them as one array. */
export const impairmentFields = [
  "seedLow",
  "seedHigh",
  "delayUs",
  "jitterUs",
  "jitterIsNormal",
  "keepsOrder",
  "loss",
  "burstEnter",
  "burstLeave",
  "burstLossGood",
  "burstLossBad",
  "reorder",
  "reorderUs",
  "duplicate",
  "corrupt",
  "rateBitsPerSecond",
  "queueBytes",
  "mtu",
] as const;

/** Whole numbers. Probabilities are thresholds: p * 2^32. Times are microseconds. Mirrored in impairment.h. */
export type ImpairmentSettings = { readonly [name in (typeof impairmentFields)[number]]: number };

/** A probability of 1. */
export const certain = 2 ** 32;

/** What becomes of a packet; the numbers are PacketFate's in impairment.h. */
export const packetFate = { delivered: 0, tooBig: 1, queueFull: 2, lost: 3, lostInBurst: 4 } as const;

const backlogPerByte = 8 * 1_000_000;

/** The array that native code takes. */
export function settingsToNumbers(settings: ImpairmentSettings): Float64Array {
  return Float64Array.from(impairmentFields, (name) => settings[name]);
}

export function settingsFromNumbers(numbers: Float64Array): ImpairmentSettings {
  return Object.fromEntries(impairmentFields.map((name, i) => [name, numbers[i]])) as ImpairmentSettings;
}

function hasBursts(settings: ImpairmentSettings): boolean {
  return settings.burstEnter > 0 || settings.burstLossGood > 0;
}

/**
 * One direction between two plugs. `decide` puts its answer into the fields below it: nothing is made per packet.
 * The same settings and plug numbers make the same decisions about the same packets.
 */
export class Impairment {
  /** When the packet comes, in microseconds; -1 when it does not. */
  atUs = -1;
  /** When a second one comes, equal to the first; -1: never. */
  copyAtUs = -1;
  /** The bit to be flipped, bit 0 being the first byte's lowest; -1: none. */
  corruptBit = -1;
  /** The packet or its copy was held back by `reorderUs`. */
  reordered = false;

  private settings: ImpairmentSettings;
  private readonly loss: RandomStream;
  private readonly burst: RandomStream;
  private readonly corrupt: RandomStream;
  private readonly duplicate: RandomStream;
  private readonly jitter: RandomStream;
  private readonly reorder: RandomStream;
  private lineIsBad = false;
  private lastAtUs = 0;
  // What the line still has to send, in bits times 10^6, at `clockUs`.
  private clockUs = 0;
  private backlog = 0;

  constructor(settings: ImpairmentSettings, from: number, to: number) {
    this.settings = settings;
    const pair = new SeedMixer((BigInt(from) << 32n) | BigInt(to));
    const seed = (BigInt(settings.seedHigh) << 32n) | BigInt(settings.seedLow);
    const mixer = new SeedMixer(pair.next() ^ seed);
    this.loss = new RandomStream(mixer);
    this.burst = new RandomStream(mixer);
    this.corrupt = new RandomStream(mixer);
    this.duplicate = new RandomStream(mixer);
    this.jitter = new RandomStream(mixer);
    this.reorder = new RandomStream(mixer);
  }

  /** New settings for the packets to come; the generators go on, and so does what is in the queue. */
  change(settings: ImpairmentSettings): void {
    this.settings = settings;
    if (!hasBursts(settings)) this.lineIsBad = false;
    if (settings.rateBitsPerSecond === 0) this.backlog = 0;
  }

  /** A `packetFate`. `nowUs` may go back a little: the queue's clock then stands. */
  decide(nowUs: number, length: number): number {
    const { settings } = this;
    this.atUs = -1;
    this.copyAtUs = -1;
    this.corruptBit = -1;
    this.reordered = false;
    if (settings.mtu > 0 && length > settings.mtu) return packetFate.tooBig;
    const leftUs = settings.rateBitsPerSecond > 0 ? this.passQueue(nowUs, length) : nowUs;
    if (leftUs < 0) return packetFate.queueFull;
    const inBurst = hasBursts(settings) && this.losesInBurst();
    const lost = settings.loss > 0 && this.loss.chance(settings.loss);
    if (lost) return packetFate.lost;
    if (inBurst) return packetFate.lostInBurst;
    if (settings.corrupt > 0 && this.corrupt.chance(settings.corrupt) && length > 0) {
      this.corruptBit = this.corrupt.below(length * 8);
    }
    this.atUs = this.arrival(leftUs);
    if (settings.duplicate > 0 && this.duplicate.chance(settings.duplicate)) {
      this.copyAtUs = this.arrival(leftUs);
    }
    return packetFate.delivered;
  }

  /** When the packet has left the queue; -1: it does not fit. */
  private passQueue(nowUs: number, length: number): number {
    const { rateBitsPerSecond: rate, queueBytes } = this.settings;
    if (nowUs > this.clockUs) {
      const elapsedUs = nowUs - this.clockUs;
      this.backlog = elapsedUs > wholeQuotient(this.backlog, rate) ? 0 : this.backlog - elapsedUs * rate;
      this.clockUs = nowUs;
    }
    // A line that is idle takes a packet of any length.
    const withIt = this.backlog + length * backlogPerByte;
    if (this.backlog > 0 && withIt > queueBytes * backlogPerByte) return -1;
    this.backlog = withIt;
    return this.clockUs + wholeQuotient(withIt + rate - 1, rate);
  }

  private losesInBurst(): boolean {
    const { burstEnter, burstLeave, burstLossGood, burstLossBad } = this.settings;
    if (this.burst.chance(this.lineIsBad ? burstLeave : burstEnter)) this.lineIsBad = !this.lineIsBad;
    return this.burst.chance(this.lineIsBad ? burstLossBad : burstLossGood);
  }

  private arrival(leftUs: number): number {
    const { delayUs, jitterUs, jitterIsNormal, reorder, reorderUs, keepsOrder } = this.settings;
    let atUs = leftUs + delayUs;
    if (jitterUs > 0) {
      let word = this.jitter.next();
      if (jitterIsNormal === 1) {
        word >>>= 2;
        for (let i = 0; i < 3; i += 1) word += this.jitter.next() >>> 2;
      }
      atUs += scaleWord(word, jitterUs + 1);
    }
    if (reorder > 0 && this.reorder.chance(reorder)) {
      this.reordered = true;
      return atUs + reorderUs;
    }
    if (keepsOrder === 1) {
      atUs = Math.max(atUs, this.lastAtUs);
      this.lastAtUs = atUs;
    }
    return atUs;
  }
}

/** Exact for whole numbers below 2^53, whatever the division rounds. */
function wholeQuotient(value: number, divisor: number): number {
  return (value - (value % divisor)) / divisor;
}
