/** Both sides have ended and the app is still busy with what came before: the end is told when it is through. */
import { expect, test } from "vitest";
import { type Flow, TcpScript } from "../../../support/tcp-script.ts";

function opened(): { script: TcpScript; flow: Flow } {
  const script = new TcpScript();
  script.listen({ quickack: true });
  script.isBusy = true;
  const flow = script.flow();
  flow.inject("S", { mss: 1460 });
  flow.expect("SA", { seq: 0, ack: 1 });
  flow.inject("A", { seq: 1, ack: 1 });
  return { script, flow };
}

test("our FIN first, then the peer's: TIME-WAIT begins, the end is told by `end`", () => {
  const { script, flow } = opened();
  flow.shutdown();
  flow.expect("FA", { seq: 1, ack: 1 });
  flow.inject("A", { seq: 1, ack: 2 });
  flow.inject("FA", { seq: 1, ack: 2 });
  flow.expect("A", { seq: 2, ack: 2 });
  expect(flow.state).toBe("TIME-WAIT");
  expect(flow.events.at(-1)).toBe("peer-ended");
  flow.end();
  expect(flow.events.at(-1)).toContain("ended");
  expect(flow.state).toBe("TIME-WAIT");
  expect(script.stack.activeCount).toBe(0);
  script.close();
});

test("the peer's FIN first, then ours: after its ACK the end is told by `end`, and nothing is left", () => {
  const { script, flow } = opened();
  flow.inject("FA", { seq: 1, ack: 1 });
  flow.expect("A", { seq: 1, ack: 2 });
  flow.shutdown();
  flow.expect("FA", { seq: 1, ack: 2 });
  flow.inject("A", { seq: 2, ack: 2 });
  expect(flow.events.at(-1)).toBe("peer-ended");
  flow.end();
  expect(flow.events.at(-1)).toContain("ended");
  expect(script.stack.activeCount).toBe(0);
  script.close();
});
