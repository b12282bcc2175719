/** A link that keeps what is posted to it, or only counts it. */
export class TestLink {
  readonly peer: number;
  /** How many descriptors of each kind have been posted. */
  readonly counts = new Int32Array(32);
  keeping = true;
  readonly posted: {
    kind: number;
    sockfd24: number;
    generation: number;
    frame: number;
    offset: number;
    length: number;
    arg1: number;
  }[] = [];

  constructor(peer: number) {
    this.peer = peer;
  }

  post(
    kind: number,
    sockfd24: number,
    generation: number,
    frame: number,
    offset: number,
    length: number,
    _arg0: number,
    arg1: number,
  ): void {
    this.counts[kind] = (this.counts[kind] as number) + 1;
    if (this.keeping) this.posted.push({ kind, sockfd24, generation, frame, offset, length, arg1 });
  }

  drained(): undefined {
    return undefined;
  }
}
