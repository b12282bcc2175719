/**
 * What a simulated connection is to do: its kind with a few numbers, and the script that each end follows.
 *
 * Layer 2, simulation only; pure, plain data. A plan is made of numbers that can be made smaller, so that a failure
 * can be shrunk; scripts follow from it. It knows no stack.
 */

/** One thing an end does; the next follows when it is done. */
export type Step =
  /** Sends so many bytes, in writes of `write` bytes, `gapUs` apart. */
  | { readonly what: "send"; readonly bytes: number; readonly write: number; readonly gapUs: number }
  /** Waits until so many bytes have come in all. */
  | { readonly what: "receive"; readonly total: number }
  /** Waits until the other end has no more to send. */
  | { readonly what: "peerEnd" }
  | { readonly what: "wait"; readonly us: number }
  /** No more to send from here (FIN). */
  | { readonly what: "shutdown" }
  /** Through with it. */
  | { readonly what: "end" }
  /** Gives up; with a reset, or with linger's. */
  | { readonly what: "abort" };

export const planKinds = [
  "exchange", // requests and responses, one after the other
  "upload",
  "download",
  "both", // bulk each way at once
  "halfClose", // the answer follows the end of the question
  "small", // many small writes
  "slowReader", // who reads pauses
  "churn", // opened and closed, nothing sent
  "abort", // one end gives up in the middle
  "closeTogether", // both say at once that they are through
  "idle", // a long silence between two exchanges, with keepalive
] as const;
export type PlanKind = (typeof planKinds)[number];

export interface Plan {
  /** Its number: what its bytes are depends on it. */
  readonly id: number;
  readonly kind: PlanKind;
  /** Indices of hosts. */
  readonly client: number;
  readonly server: number;
  readonly version6: boolean;
  readonly startUs: number;
  /** Bytes from the client and from the server; of an exchange, of each round. */
  readonly up: number;
  readonly down: number;
  readonly rounds: number;
  readonly write: number;
  readonly gapUs: number;
  /** For how long a reader pauses, a silence lasts, an abort waits. */
  readonly pauseUs: number;
  /** Who aborts, or closes first. */
  readonly serverFirst: boolean;
  /** Whether the ends keep the connection's record, as an app with unfinished business does. */
  readonly pinned: boolean;
}

export interface Scripts {
  readonly client: readonly Step[];
  readonly server: readonly Step[];
}

/** Everything that was sent is to arrive. */
export function isClean(plan: Plan): boolean {
  return plan.kind !== "abort";
}

/** Bytes that each end sends in all. */
export function totals(plan: Plan): { up: number; down: number } {
  const { client, server } = scriptsOf(plan);
  const sum = (steps: readonly Step[]) =>
    steps.reduce((total, step) => total + (step.what === "send" ? step.bytes : 0), 0);
  return { up: sum(client), down: sum(server) };
}

/** The two ends' scripts. */
export function scriptsOf(plan: Plan): Scripts {
  const { kind, up, down, rounds, write, gapUs, pauseUs, serverFirst } = plan;
  const send = (bytes: number): Step => ({ what: "send", bytes, write, gapUs });
  const receive = (total: number): Step => ({ what: "receive", total });
  const wait = (us: number): Step => ({ what: "wait", us });
  const peerEnd: Step = { what: "peerEnd" };
  const shutdown: Step = { what: "shutdown" };
  const end: Step = { what: "end" };
  const abort: Step = { what: "abort" };
  /** `first` closes when both have all that they are to have; the other follows. */
  const closed = (client: Step[], server: Step[]): Scripts => {
    const [one, other] = serverFirst ? [server, client] : [client, server];
    one.push(shutdown, peerEnd, end);
    other.push(peerEnd, end);
    return { client, server };
  };
  switch (kind) {
    case "exchange":
    case "idle": {
      const client: Step[] = [];
      const server: Step[] = [];
      for (let round = 1; round <= rounds; round += 1) {
        client.push(send(up), receive(round * down));
        server.push(receive(round * up), send(down));
        if (kind === "idle" && round < rounds) client.push(wait(pauseUs));
      }
      return closed(client, server);
    }
    case "upload":
    case "small":
    case "slowReader":
      return { client: [send(up), shutdown, peerEnd, end], server: [receive(up), peerEnd, end] };
    case "download":
      return { client: [receive(down), peerEnd, end], server: [send(down), shutdown, peerEnd, end] };
    case "both":
      return closed([send(up), receive(down)], [send(down), receive(up)]);
    case "halfClose":
      return {
        client: [send(up), shutdown, receive(down), peerEnd, end],
        server: [peerEnd, send(down), end],
      };
    case "churn":
      return closed([], []);
    case "abort": {
      const early = [wait(pauseUs), abort];
      const other = (bytes: number): Step[] => [send(bytes), shutdown, peerEnd, end];
      return serverFirst
        ? { client: other(up), server: early }
        : { client: [send(Math.ceil(up / 2)), ...early], server: other(down) };
    }
    case "closeTogether":
      return {
        client: [send(up), receive(down), shutdown, peerEnd, end],
        server: [send(down), receive(up), shutdown, peerEnd, end],
      };
  }
}
