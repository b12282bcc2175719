/**
 * RFC 9293 3.10.7 "SEGMENT ARRIVES", with RFC 5961's changes: what is answered to each kind of segment in each state.
 *
 * A row is a kind of segment; a column is what must come of it in a state: the answers, then the state after it. Where
 * the RFC leaves a choice the comment says which one is ours.
 */
import { describe, expect, test } from "vitest";
import type { Fields } from "../../../support/tcp-script.ts";
import { reach, type Scene, type StateName, stateNames } from "./states.ts";

type Outcome = readonly [answers: string, state?: StateName];
type Kind = (scene: Scene) => [string, Fields];

const window = 65_535;
/** `A` is an ACK that says what is expected, `R` a reset at the number that the segment acknowledged. */
const kinds: Record<string, Kind> = {
  "RST exactly where it is expected": ({ next, sent }) => ["RA", { seq: next, ack: sent }],
  "RST without ACK there": ({ next }) => ["R", { seq: next }],
  "RST elsewhere in the window": ({ next, sent }) => ["RA", { seq: next + 1000, ack: sent }],
  "RST before the window": ({ next, sent }) => ["RA", { seq: next - 1, ack: sent }],
  "RST behind the window": ({ next, sent }) => ["RA", { seq: next + window + 1000, ack: sent }],
  "SYN in the window": ({ next }) => ["S", { seq: next + 100 }],
  "SYN outside of the window": ({ next }) => ["S", { seq: next - 50_000 }],
  "SYN, ACK in the window": ({ next, sent }) => ["SA", { seq: next + 100, ack: sent }],
  "ACK of all that was sent": ({ next, sent }) => ["A", { seq: next, ack: sent }],
  "ACK of what was never sent": ({ next, sent }) => ["A", { seq: next, ack: sent + 1 }],
  "ACK of long ago": ({ next, una }) => ["A", { seq: next, ack: una - 70_000 }],
  "no ACK": ({ next }) => ["P", { seq: next, data: 5 }],
  "nothing set at all": ({ next }) => ["", { seq: next }],
  "data that are next": ({ next, una }) => ["PA", { seq: next, ack: una, data: 10 }],
  "data a little ahead": ({ next, una }) => ["PA", { seq: next + 10, ack: una, data: 10 }],
  "data of before": ({ next, una }) => ["PA", { seq: next - 11, ack: una, data: 10 }],
  "data behind the window": ({ next, una }) => ["PA", { seq: next + window + 5000, ack: una, data: 10 }],
  "FIN that is next": ({ next, una }) => ["FA", { seq: next, ack: una }],
  "FIN that is next, and ACK of all": ({ next, sent }) => ["FA", { seq: next, ack: sent }],
  "FIN behind the window": ({ next, una }) => ["FA", { seq: next + window + 5000, ack: una }],
};

/** Answers by state; `*` for the synchronised states that are not named. */
const expected: Record<string, Partial<Record<StateName | "*", Outcome>>> = {
  "RST exactly where it is expected": {
    CLOSED: [""],
    LISTEN: [""],
    "SYN-SENT": ["", "CLOSED"],
    "SYN-RECEIVED": ["", "CLOSED"],
    "TIME-WAIT": [""], // RFC 1337
    "*": ["", "CLOSED"],
  },
  "RST without ACK there": {
    CLOSED: [""],
    LISTEN: [""],
    "SYN-SENT": [""],
    "SYN-RECEIVED": ["", "CLOSED"],
    "TIME-WAIT": [""],
    "*": ["", "CLOSED"],
  },
  "RST elsewhere in the window": {
    CLOSED: [""],
    LISTEN: [""],
    "SYN-SENT": ["", "CLOSED"], // the ACK alone counts
    "TIME-WAIT": [""],
    "*": ["A"],
  },
  "RST before the window": { "SYN-SENT": ["", "CLOSED"], "*": [""] },
  "RST behind the window": { "SYN-SENT": ["", "CLOSED"], "*": [""] },
  "SYN in the window": {
    CLOSED: ["RA"],
    LISTEN: ["SA", "SYN-RECEIVED"],
    "SYN-SENT": ["SA", "SYN-RECEIVED"],
    "TIME-WAIT": ["SA", "SYN-RECEIVED"], // RFC 9293 3.6.1: a newer one begins anew
    "*": ["A"],
  },
  "SYN outside of the window": {
    CLOSED: ["RA"],
    LISTEN: ["SA", "SYN-RECEIVED"],
    "SYN-SENT": ["SA", "SYN-RECEIVED"],
    "*": ["A"],
  },
  "SYN, ACK in the window": {
    CLOSED: ["R"],
    LISTEN: ["R"],
    "SYN-SENT": ["A", "ESTABLISHED"],
    "*": ["A"],
  },
  "ACK of all that was sent": {
    CLOSED: ["R"],
    LISTEN: ["R"],
    "SYN-SENT": [""],
    "SYN-RECEIVED": ["", "ESTABLISHED"],
    "FIN-WAIT-1": ["", "FIN-WAIT-2"],
    CLOSING: ["", "TIME-WAIT"],
    "LAST-ACK": ["", "CLOSED"],
    "*": [""],
  },
  "ACK of what was never sent": {
    CLOSED: ["R"],
    LISTEN: ["R"],
    "SYN-SENT": ["R"],
    "SYN-RECEIVED": ["R"],
    "TIME-WAIT": [""], // nothing that an ACK could do to it
    "*": ["A"],
  },
  "ACK of long ago": {
    CLOSED: ["R"],
    LISTEN: ["R"],
    "SYN-SENT": ["R"],
    "SYN-RECEIVED": ["R"],
    "TIME-WAIT": [""],
    "*": ["A"],
  },
  "no ACK": { CLOSED: ["RA"], "TIME-WAIT": ["A"], "*": [""] },
  "nothing set at all": { CLOSED: ["RA"], "*": [""] },
  "data that are next": {
    CLOSED: ["R"],
    LISTEN: ["R"],
    "SYN-SENT": ["R"], // it acknowledges less than our SYN
    "SYN-RECEIVED": ["R"],
    ESTABLISHED: ["A +10"],
    "FIN-WAIT-1": ["A +10"],
    "FIN-WAIT-2": ["A +10"],
    "TIME-WAIT": ["A"],
    "*": [""], // behind the peer's FIN: ignored
  },
  "data a little ahead": {
    CLOSED: ["R"],
    LISTEN: ["R"],
    "SYN-SENT": ["R"],
    "SYN-RECEIVED": ["R"],
    ESTABLISHED: ["A"],
    "FIN-WAIT-1": ["A"],
    "FIN-WAIT-2": ["A"],
    "TIME-WAIT": ["A"],
    "*": [""],
  },
  "data of before": {
    CLOSED: ["R"],
    LISTEN: ["R"],
    "SYN-SENT": ["R"],
    "*": ["A"],
  },
  "data behind the window": {
    CLOSED: ["R"],
    LISTEN: ["R"],
    "SYN-SENT": ["R"],
    "*": ["A"],
  },
  "FIN that is next": {
    CLOSED: ["R"],
    LISTEN: ["R"],
    "SYN-SENT": ["R"],
    "SYN-RECEIVED": ["R"],
    ESTABLISHED: ["A +1", "CLOSE-WAIT"],
    "FIN-WAIT-1": ["A +1", "CLOSING"],
    "FIN-WAIT-2": ["A +1", "TIME-WAIT"],
    "*": ["A"],
  },
  "FIN that is next, and ACK of all": {
    CLOSED: ["R"],
    LISTEN: ["R"],
    "SYN-SENT": [""],
    "SYN-RECEIVED": ["A +1", "CLOSE-WAIT"],
    ESTABLISHED: ["A +1", "CLOSE-WAIT"],
    "FIN-WAIT-1": ["A +1", "TIME-WAIT"],
    "FIN-WAIT-2": ["A +1", "TIME-WAIT"],
    CLOSING: ["A", "TIME-WAIT"],
    "LAST-ACK": ["", "CLOSED"],
    "*": ["A"],
  },
  "FIN behind the window": {
    CLOSED: ["R"],
    LISTEN: ["R"],
    "SYN-SENT": ["R"],
    "*": ["A"],
  },
};

/** Looks at the answers: their flags are `text`'s, and their numbers are what the RFC says. */
function checkAnswers(scene: Scene, text: string, flags: string, fields: Fields): void {
  const { script, flow } = scene;
  if (text === "") {
    script.expectNothing();
    return;
  }
  const [letters = "", more = "0"] = text.split(" +");
  const { seq = 0, ack = 0 } = fields;
  if (letters === "R") {
    const answer = flow.expect("R", { ack: 0, window: 0, length: 0 });
    expect(answer.seq).toBe(ack);
  } else if (letters === "RA") {
    const length = (typeof fields.data === "number" ? fields.data : 0) + (flags.includes("S") ? 1 : 0);
    expect(flow.expect("RA", { length: 0 }).ack).toBe(seq + length);
  } else if (letters === "SA") {
    flow.expect("SA", { seq: 0, ack: seq + 1 });
  } else {
    const isFirst = flags.includes("S") && scene.next === 0;
    const next = isFirst ? seq + 1 : scene.next + Number(more);
    flow.expect("A", { seq: scene.sent, ack: next, length: 0 });
  }
  script.expectNothing();
}

describe.each(stateNames)("in %s", (state) => {
  test.each(Object.keys(kinds))("%s", (kind) => {
    const scene = reach(state);
    const { flow } = scene;
    const [flags, fields] = (kinds[kind] as Kind)(scene);
    const row = expected[kind] as Partial<Record<StateName | "*", Outcome>>;
    const [answers, after = state] = row[state] ?? (row["*"] as Outcome);
    flow.inject(flags, fields);
    checkAnswers(scene, answers, flags, fields);
    const listening = after === "LISTEN" ? "CLOSED" : after;
    expect(flow.state).toBe(listening);
    const delivers = answers === "A +10";
    expect(flow.received.length).toBe(delivers ? 10 : 0);
    scene.script.close();
  });
});
