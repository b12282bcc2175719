/** Opening a connection, by RFC 9293 3.5 and 3.10.7: what is answered to what, from both sides. */
import { describe, expect, test } from "vitest";
import { TcpScript } from "../../../support/tcp-script.ts";

describe("a passive open", () => {
  test("SYN, SYN-ACK, ACK: the connection stands and is accepted once", () => {
    const script = new TcpScript();
    script.listen({ quickack: true });
    const flow = script.flow();
    flow.inject("S", { mss: 1460, scale: 7, sackPermitted: true, ts: 1000 });
    const answer = flow.expect("SA", { seq: 0, ack: 1, mss: 1460, sackPermitted: true, length: 0 });
    expect(answer.ts?.[1]).toBe(1000);
    expect(answer.scale).toBe(7);
    expect(flow.state).toBe("SYN-RECEIVED");
    expect(flow.events).toEqual([]);
    flow.inject("A", { seq: 1, ack: 1, ts: 1001 });
    expect(flow.state).toBe("ESTABLISHED");
    expect(flow.events).toEqual(["accepted"]);
    flow.inject("PA", { seq: 1, ack: 1, data: "hello", ts: 1002 });
    expect(flow.received).toBe("hello");
    flow.expect("A", { seq: 1, ack: 6 });
    script.close();
  });
});
