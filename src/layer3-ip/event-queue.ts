/**
 * What is to happen when, in virtual time: the earliest first, at one instant the one that was put in first.
 *
 * Layer 3, pure. A binary heap; the order is total, so the same calls give the same order on every machine.
 */

interface Entry<Event> {
  readonly atUs: number;
  readonly sequence: number;
  readonly event: Event;
}

export class EventQueue<Event> {
  private readonly heap: Entry<Event>[] = [];
  private sequence = 0;

  get size(): number {
    return this.heap.length;
  }

  /** When the next event is due; undefined when there is none. */
  get nextAtUs(): number | undefined {
    return this.heap[0]?.atUs;
  }

  add(atUs: number, event: Event): void {
    const entry = { atUs, sequence: this.sequence, event };
    this.sequence += 1;
    const { heap } = this;
    let at = heap.length;
    heap.push(entry);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(entry, heap[parent] as Entry<Event>)) break;
      heap[at] = heap[parent] as Entry<Event>;
      at = parent;
    }
    heap[at] = entry;
  }

  /** Takes out the next event; undefined when there is none. */
  take(): Event | undefined {
    const { heap } = this;
    const first = heap[0];
    const last = heap.pop();
    if (first && last && first !== last) this.sink(last);
    return first?.event;
  }

  /** Puts an entry at the top and lets it down to its place. */
  private sink(entry: Entry<Event>): void {
    const { heap } = this;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1] as Entry<Event>, heap[child] as Entry<Event>)) {
        child += 1;
      }
      if (!isBefore(heap[child] as Entry<Event>, entry)) break;
      heap[at] = heap[child] as Entry<Event>;
      at = child;
    }
    heap[at] = entry;
  }
}

function isBefore(a: Entry<unknown>, b: Entry<unknown>): boolean {
  return a.atUs < b.atUs || (a.atUs === b.atUs && a.sequence < b.sequence);
}
