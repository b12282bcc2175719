/** Brings a connection of a script into each of RFC 9293's states, with nothing left to look at. */
import { expect } from "vitest";
import type { TcpOptions } from "../../../../src/layer2-transport/tcp/options.ts";
import { type Fields, type Flow, type ScriptSettings, TcpScript } from "../../../support/tcp-script.ts";

export const stateNames = [
  "CLOSED",
  "LISTEN",
  "SYN-SENT",
  "SYN-RECEIVED",
  "ESTABLISHED",
  "FIN-WAIT-1",
  "FIN-WAIT-2",
  "CLOSE-WAIT",
  "CLOSING",
  "LAST-ACK",
  "TIME-WAIT",
] as const;
export type StateName = (typeof stateNames)[number];

export interface Scene {
  readonly script: TcpScript;
  readonly flow: Flow;
  /** The sequence number that the stack expects next. */
  readonly next: number;
  /** The first of ours that is not acknowledged, and the one that comes next. */
  readonly una: number;
  readonly sent: number;
}

/** A connection that stands, with the peer as client. `syn` are the options of its SYN. */
export function accepted(
  options: Partial<TcpOptions> = {},
  syn: Fields = {},
  settings: ScriptSettings = {},
): Scene {
  const script = new TcpScript(settings);
  script.listen({ quickack: true, ...options });
  const flow = script.flow();
  handshake(flow, syn);
  return { script, flow, next: 1, una: 1, sent: 1 };
}

/** The three segments, and the window of the third is that of `syn`. */
export function handshake(flow: Flow, syn: Fields = {}): void {
  flow.inject("S", { mss: 1460, ...syn });
  flow.expect("SA", { seq: 0, ack: 1 });
  const { window = 65_535 } = syn;
  flow.inject("A", { seq: 1, ack: 1, window, ...(syn.ts === undefined ? {} : { ts: syn.ts }) });
  expect(flow.events).toEqual(["accepted"]);
}

/** A connection that stands, with the peer as server. */
export function connected(options: Partial<TcpOptions> = {}, syn: Fields = {}): Scene {
  const script = new TcpScript();
  const flow = script.connect({ quickack: true, ...options });
  flow.expect("S", { seq: 0 });
  flow.inject("SA", { seq: 0, ack: 1, mss: 1460, ...syn });
  flow.expect("A", { seq: 1, ack: 1 });
  expect(flow.events).toEqual(["connected"]);
  return { script, flow, next: 1, una: 1, sent: 1 };
}

export function reach(name: StateName): Scene {
  if (name === "CLOSED" || name === "LISTEN" || name === "SYN-RECEIVED") return opening(name);
  if (name === "SYN-SENT") {
    const script = new TcpScript();
    const flow = script.connect({ quickack: true });
    flow.expect("S", { seq: 0 });
    return { script, flow, next: 0, una: 0, sent: 1 };
  }
  const { script, flow } = accepted();
  const scene = { script, flow, ...closing(flow, name) };
  expect(flow.state).toBe(name);
  script.expectNothing();
  return scene;
}

function opening(name: "CLOSED" | "LISTEN" | "SYN-RECEIVED"): Scene {
  const script = new TcpScript();
  if (name !== "CLOSED") script.listen({ quickack: true });
  const flow = script.flow();
  if (name !== "SYN-RECEIVED") return { script, flow, next: 0, una: 0, sent: 0 };
  flow.inject("S", { mss: 1460 });
  flow.expect("SA", { seq: 0, ack: 1 });
  return { script, flow, next: 1, una: 0, sent: 1 };
}

/** From ESTABLISHED to where both sides' FINs lead. */
function closing(flow: Flow, name: StateName): Pick<Scene, "next" | "una" | "sent"> {
  if (name === "ESTABLISHED") return { next: 1, una: 1, sent: 1 };
  if (name === "CLOSE-WAIT" || name === "LAST-ACK") {
    flow.inject("FA", { seq: 1, ack: 1 });
    flow.expect("A", { seq: 1, ack: 2 });
    if (name === "CLOSE-WAIT") return { next: 2, una: 1, sent: 1 };
    flow.shutdown();
    flow.expect("FA", { seq: 1, ack: 2 });
    return { next: 2, una: 1, sent: 2 };
  }
  flow.shutdown();
  flow.expect("FA", { seq: 1, ack: 1 });
  if (name === "FIN-WAIT-1") return { next: 1, una: 1, sent: 2 };
  if (name === "CLOSING") {
    flow.inject("FA", { seq: 1, ack: 1 });
    flow.expect("A", { seq: 2, ack: 2 });
    return { next: 2, una: 1, sent: 2 };
  }
  flow.inject("A", { seq: 1, ack: 2 });
  if (name === "FIN-WAIT-2") return { next: 1, una: 2, sent: 2 };
  flow.inject("FA", { seq: 1, ack: 2 });
  flow.expect("A", { seq: 2, ack: 2 });
  return { next: 2, una: 2, sent: 2 };
}
