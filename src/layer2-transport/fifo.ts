/**
 * A first-in-first-out queue that does not move its elements.
 *
 * Layer 2. An array with a moving front, compacted when the front half is empty: cheaper than `shift` on long queues.
 */

const compactAfter = 64;

export class Fifo<T> {
  private items: T[] = [];
  private front = 0;

  get length(): number {
    return this.items.length - this.front;
  }

  push(item: T): void {
    this.items.push(item);
  }

  peek(): T | undefined {
    return this.items[this.front];
  }

  shift(): T | undefined {
    if (this.front === this.items.length) return undefined;
    const item = this.items[this.front] as T;
    this.front += 1;
    if (this.front === this.items.length) {
      this.items.length = 0;
      this.front = 0;
    } else if (this.front >= compactAfter && this.front * 2 >= this.items.length) {
      this.items = this.items.slice(this.front);
      this.front = 0;
    }
    return item;
  }
}
