/**
 * Tells an attack from a mishap: counts each kind of strange event, says when it goes beyond its mark, and when it is
 * over.
 *
 * Layer 2, one worker. Windows of a second; an attack is over after five that were below half the mark. Nothing here
 * decides what is done about it. An event costs a few steps; words are made once a window.
 */

import { maskInto, type PrefixBits, prefixText } from "./prefix-text.ts";
import type { AttackKind, AttackNote, TraceNote } from "./report.ts";
import { TopSources } from "./top-sources.ts";

const quietWindows = 5;
/** An attack that goes on is told anew after so many windows. */
const tellEvery = 10;
/** Of sixteen, those with at least this share of a window's events are worth a record. */
const traceShare = 1 / 16;

/** How far away: senders start with 32, 64, 128 or 255. -1: not known. */
export function distanceOf(hopLimit: number): number {
  if (hopLimit === 0) return -1;
  const start = hopLimit <= 32 ? 32 : hopLimit <= 64 ? 64 : hopLimit <= 128 ? 128 : 255;
  return start - hopLimit;
}

/** One kind of event. */
export class AttackWatch {
  readonly kind: AttackKind;
  /** Since the attack began; of a state, the most at once. */
  count = 0;
  private readonly mark: number;
  private readonly top = new TopSources();
  private readonly bits: PrefixBits;
  private readonly prefix = new Int32Array(4);
  private inWindow = 0;
  private isLevel = false;
  private sinceMs = -1;
  private quiet = 0;
  private untold = 0;

  /** `mark`: events a second that are an attack; 0: never. `bits`: what counts as one sender. */
  constructor(kind: AttackKind, mark: number, bits: PrefixBits) {
    this.kind = kind;
    this.mark = mark;
    this.bits = bits;
  }

  get isOn(): boolean {
    return this.sinceMs >= 0;
  }

  add(words: Int32Array, at: number, wordCount: 1 | 4, hopLimit: number): void {
    this.inWindow += 1;
    this.sample(words, at, wordCount, hopLimit);
  }

  /** Events whose sources are not looked at; those that are go by `sample`. */
  addMany(count: number): void {
    this.inWindow += count;
  }

  sample(words: Int32Array, at: number, wordCount: 1 | 4, hopLimit: number): void {
    maskInto(this.prefix, words, at, wordCount, this.bits);
    this.top.add(this.prefix, 0, wordCount, hopLimit);
  }

  /** How many there are now, for what is a state and not a series of events. */
  setLevel(level: number): void {
    this.isLevel = true;
    this.inWindow = level;
  }

  /** The end of a window of `windowMs`: what is to be told, if anything. Traces are added to `traces`. */
  turn(nowMs: number, windowMs: number, traces: TraceNote[]): AttackNote | undefined {
    const perSecond = this.isLevel ? this.inWindow : (this.inWindow * 1000) / windowMs;
    const wasOn = this.isOn;
    if (!wasOn && this.mark > 0 && perSecond >= this.mark) {
      this.sinceMs = nowMs - windowMs;
      this.count = 0;
      this.untold = tellEvery;
    }
    if (!this.isOn) {
      this.forget();
      return undefined;
    }
    this.count = this.isLevel ? Math.max(this.count, this.inWindow) : this.count + this.inWindow;
    this.untold += 1;
    this.quiet = perSecond < this.mark / 2 ? this.quiet + 1 : 0;
    const isOver = this.quiet >= quietWindows;
    this.trace(traces);
    const note = isOver || this.untold > tellEvery ? this.note(nowMs, perSecond, isOver) : undefined;
    if (isOver) {
      this.sinceMs = -1;
      this.quiet = 0;
    }
    this.forget();
    return note;
  }

  private note(nowMs: number, perSecond: number, isOver: boolean): AttackNote {
    this.untold = 0;
    const place = this.top.top();
    const { kind, count, sinceMs } = this;
    return {
      kind,
      isOver,
      from: place < 0 ? "" : this.sourceAt(place),
      distance: place < 0 ? -1 : distanceOf(this.top.hopLimits[place] as number),
      perSecond: Math.round(perSecond),
      count,
      sinceMs: nowMs - sinceMs,
    };
  }

  private trace(traces: TraceNote[]): void {
    const { top } = this;
    // A sample's counts are made to stand for all.
    const scale = top.total === 0 ? 0 : this.inWindow / top.total;
    for (let place = 0; place < top.counts.length; place += 1) {
      const sure = (top.counts[place] as number) - (top.errors[place] as number);
      if (top.wordCounts[place] === 0 || sure < traceShare * top.total) continue;
      traces.push({
        source: this.sourceAt(place),
        reason: this.kind,
        count: Math.round(sure * scale),
        distance: distanceOf(top.hopLimits[place] as number),
      });
    }
  }

  private sourceAt(place: number): string {
    return prefixText(this.top.words, 4 * place, this.top.wordCounts[place] as 1 | 4, this.bits);
  }

  private forget(): void {
    this.inWindow = 0;
    this.top.clear();
  }
}
