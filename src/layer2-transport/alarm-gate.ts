/**
 * Lets an alarm through at once, and its repetitions at most once a second with their count.
 *
 * Layer 2, also used by layer 1. An attack raises an alarm a million times a second; nobody wants a message each.
 */

const quietMs = 1000;

interface Gate {
  suppressed: number;
  timer: NodeJS.Timeout | undefined;
  text: string;
}

export class AlarmGate<Code extends string> {
  private readonly gates = new Map<string, Gate>();
  private readonly tell: (open: number, code: Code, text: string, count: number) => void;

  constructor(tell: (open: number, code: Code, text: string, count: number) => void) {
    this.tell = tell;
  }

  /** `open` is the listener or client connection that it is about. */
  raise(open: number, code: Code, text: string): void {
    const key = `${open} ${code}`;
    const gate = this.gates.get(key);
    if (gate) {
      gate.suppressed += 1;
      gate.text = text;
      return;
    }
    const fresh: Gate = { suppressed: 0, timer: undefined, text };
    this.gates.set(key, fresh);
    this.arm(key, fresh, open, code);
    this.tell(open, code, text, 1);
  }

  close(): void {
    for (const gate of this.gates.values()) clearTimeout(gate.timer);
    this.gates.clear();
  }

  private arm(key: string, gate: Gate, open: number, code: Code): void {
    gate.timer = setTimeout(() => {
      if (gate.suppressed === 0) {
        this.gates.delete(key);
        return;
      }
      const count = gate.suppressed;
      gate.suppressed = 0;
      this.arm(key, gate, open, code);
      this.tell(open, code, gate.text, count);
    }, quietMs);
    gate.timer.unref();
  }
}
