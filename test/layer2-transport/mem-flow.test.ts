/** The table that finds a flow by its 5-tuple, against a map that does it the slow way. */

import fc from "fast-check";
import { expect, test } from "vitest";
import { Flow, FlowKey, FlowTable } from "../../src/layer2-transport/raw/flow.ts";
import { defaultUdpOptions } from "../../src/layer2-transport/raw/udp-options.ts";
import { defaultTcpOptions } from "../../src/layer2-transport/tcp/options.ts";
import type { ConnectionRules } from "../../src/layer2-transport/transport.ts";
import { SteerHash } from "../../src/layer3-ip/steer.ts";

const rules: ConnectionRules = {
  protocol: "udp",
  framing: "raw",
  recvlen: 65_536,
  sendlen: 65_536,
  idleMs: 0,
  waiting: 64,
  tcp: defaultTcpOptions,
  udp: defaultUdpOptions,
};

interface Tuple {
  readonly six: boolean;
  readonly remote: number;
  readonly local: number;
  readonly remotePort: number;
  readonly localPort: number;
}

function setKey(key: FlowKey, tuple: Tuple): void {
  key.words.fill(0);
  key.wordCount = tuple.six ? 4 : 1;
  key.words[tuple.six ? 3 : 0] = tuple.remote;
  key.words[tuple.six ? 7 : 4] = tuple.local;
  key.remotePort = tuple.remotePort;
  key.localPort = tuple.localPort;
  key.protocol = 17;
}

// Few values of each, so that keys meet again and the table is both crowded and emptied.
const tuple: fc.Arbitrary<Tuple> = fc.record({
  six: fc.boolean(),
  remote: fc.integer({ min: -3, max: 3 }),
  local: fc.integer({ min: 0, max: 1 }),
  remotePort: fc.integer({ min: 1, max: 30 }),
  localPort: fc.integer({ min: 1, max: 3 }),
});
const steps = fc.array(fc.record({ what: fc.constantFrom("add", "add", "remove", "find"), tuple }), {
  maxLength: 600,
});

test("the table and a map agree after every step", () => {
  fc.assert(
    fc.property(steps, fc.nat(), (all, key) => {
      const table = new FlowTable(new SteerHash({ low: key, high: 7 }));
      const map = new Map<string, Flow>();
      const wanted = new FlowKey();
      for (const { what, tuple: at } of all) {
        setKey(wanted, at);
        const name = JSON.stringify(at);
        const known = map.get(name);
        expect(table.find(wanted)).toBe(known);
        if (what === "add" && !known) {
          const flow = new Flow(rules, false, wanted, 1500);
          table.add(flow);
          map.set(name, flow);
        } else if (what === "remove" && known) {
          expect(table.remove(known)).toBe(true);
          expect(table.remove(known)).toBe(false);
          map.delete(name);
        }
        expect(table.size).toBe(map.size);
      }
      expect(new Set(table.all())).toEqual(new Set(map.values()));
    }),
    { numRuns: 200 },
  );
});
