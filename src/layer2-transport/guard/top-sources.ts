/**
 * Who sends most of something, among more senders than can be counted: the "space-saving" sketch.
 *
 * Layer 2, pure. Sixteen places; a newcomer takes the place with the smallest count and inherits that count as its
 * possible error. Whoever sent more than a sixteenth of all is always among them. Fixed arrays, sixteen steps an event.
 */

const places = 16;

export class TopSources {
  readonly counts = new Float64Array(places);
  /** How much of each count may be others'. */
  readonly errors = new Float64Array(places);
  readonly words = new Int32Array(4 * places);
  /** Words of the address; 0: nobody. */
  readonly wordCounts = new Uint8Array(places);
  readonly hopLimits = new Uint8Array(places);
  total = 0;

  add(words: Int32Array, at: number, wordCount: 1 | 4, hopLimit: number): void {
    this.total += 1;
    let least = 0;
    for (let place = 0; place < places; place += 1) {
      if (this.isAt(place, words, at, wordCount)) {
        (this.counts[place] as number) += 1;
        return;
      }
      if ((this.counts[place] as number) < (this.counts[least] as number)) least = place;
    }
    this.errors[least] = this.counts[least] as number;
    (this.counts[least] as number) += 1;
    this.wordCounts[least] = wordCount;
    this.hopLimits[least] = hopLimit;
    for (let i = 0; i < wordCount; i += 1) this.words[4 * least + i] = words[at + i] as number;
  }

  /** The place of whoever certainly sent most, and at least a quarter of all; -1: nobody stands out. */
  top(): number {
    let best = -1;
    let sure = this.total / 4;
    for (let place = 0; place < places; place += 1) {
      const least = (this.counts[place] as number) - (this.errors[place] as number);
      if (this.wordCounts[place] === 0 || least <= sure) continue;
      best = place;
      sure = least;
    }
    return best;
  }

  clear(): void {
    this.counts.fill(0);
    this.errors.fill(0);
    this.wordCounts.fill(0);
    this.total = 0;
  }

  private isAt(place: number, words: Int32Array, at: number, wordCount: 1 | 4): boolean {
    if (this.wordCounts[place] !== wordCount) return false;
    for (let i = 0; i < wordCount; i += 1) {
      if (this.words[4 * place + i] !== words[at + i]) return false;
    }
    return true;
  }
}
