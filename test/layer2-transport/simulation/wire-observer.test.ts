/** Segments that make no sense, made by hand: the observer must say so of each, and of a good exchange nothing. */
import { beforeEach, expect, test } from "vitest";
import { Content } from "../../../src/layer2-transport/simulation/content.ts";
import { store16, store32, tcpFlag } from "../../../src/layer2-transport/simulation/packet-bytes.ts";
import { WireObserver } from "../../../src/layer2-transport/simulation/wire-observer.ts";

const { syn, ack, fin } = tcpFlag;
const content = new Content(1, true);
let observer: WireObserver;

interface Given {
  readonly fromServer?: boolean;
  readonly seq: number;
  readonly ack?: number;
  readonly flags?: number;
  readonly window?: number;
  readonly data?: number;
  readonly options?: number[];
  /** What its data are taken from; the segment's own place unless told. */
  readonly position?: number;
}

const clientIss = 0xffff_ff00;
const serverIss = 1000;

/** Sends a segment; sequence numbers count from each end's SYN. */
function send(given: Given): void {
  const { fromServer = false, seq, flags = ack, window = 100, data = 0, options = [] } = given;
  const header = 20 + options.length;
  const packet = new Uint8Array(20 + header + data);
  packet[0] = 0x45;
  packet.set(fromServer ? [10, 0, 0, 2, 10, 0, 0, 1] : [10, 0, 0, 1, 10, 0, 0, 2], 12);
  store16(packet, 20, fromServer ? 80 : 5000);
  store16(packet, 22, fromServer ? 5000 : 80);
  store32(packet, 24, (fromServer ? serverIss : clientIss) + seq);
  if (given.ack !== undefined) store32(packet, 28, (fromServer ? clientIss : serverIss) + given.ack);
  packet[32] = (header / 4) << 4;
  packet[33] = flags;
  store16(packet, 34, window);
  packet.set(options, 40);
  content.write(packet, 20 + header, given.position ?? seq - 1, data);
  observer.sent(packet);
}

const synOptions = (scale: number, stamp: number) => [
  ...[2, 4, 0x05, 0xb4, 1, 3, 3, scale],
  ...[1, 1, 8, 10, 0, 0, 0, stamp, 0, 0, 0, 0],
];
const stamps = (value: number, echo: number) => [1, 1, 8, 10, 0, 0, 0, value, 0, 0, 0, echo];
const sack = (...edges: number[]) => {
  const bytes = new Uint8Array(4 + 4 * edges.length);
  bytes.set([1, 1, 5, 2 + 4 * edges.length]);
  edges.forEach((edge, i) => {
    store32(bytes, 4 + 4 * i, clientIss + edge);
  });
  return [...bytes];
};

beforeEach(() => {
  observer = new WireObserver((source) => (source === "10.0.0.1:5000" ? content : undefined));
  send({ seq: 0, flags: syn, window: 1000, options: synOptions(2, 5) });
  const answer = synOptions(3, 9);
  answer[19] = 5;
  send({ fromServer: true, seq: 0, ack: 1, flags: syn | ack, window: 8000, options: answer });
  send({ seq: 1, ack: 1, options: stamps(5, 9) });
});

test("a good exchange, over the end of sequence numbers, is no fault", () => {
  send({ seq: 1, ack: 1, data: 1000, options: stamps(6, 9) });
  send({ seq: 1001, ack: 1, data: 500, options: stamps(6, 9) });
  send({ fromServer: true, seq: 1, ack: 1001, window: 900, options: [...stamps(9, 6), ...sack(1201, 1501)] });
  send({ fromServer: true, seq: 1, ack: 1501, window: 900, options: [...stamps(9, 6), ...sack(1, 1001)] });
  send({ seq: 1501, ack: 1, flags: ack | fin, options: stamps(7, 9) });
  send({ fromServer: true, seq: 1, ack: 1502, window: 900, options: stamps(10, 7) });
  expect(observer.faults).toEqual([]);
});

const stamped = { ack: 1, options: stamps(5, 9) };
const answered = { fromServer: true, seq: 1, options: stamps(9, 5) };

test.each<[string, Given[], RegExp]>([
  ["data with a hole before them", [{ ...stamped, seq: 50, data: 10 }], /leaves out what follows 1/],
  ["wrong data", [{ ...stamped, seq: 1, data: 10, position: 3 }], /position 0 is wrong/],
  ["data beyond the window", [{ ...stamped, seq: 1, data: 1400 }, ...beyondWindow()], /beyond the window/],
  [
    "a segment longer than the MSS",
    [{ ...stamped, seq: 1, data: 1449 }],
    /more than the other's MSS of 1460/,
  ],
  [
    "data behind a FIN",
    [
      { ...stamped, seq: 1, flags: ack | fin },
      { ...stamped, seq: 1, data: 5 },
    ],
    /FIN was sent at 1 before/,
  ],
  ["an acknowledgement of what was never sent", [{ ...answered, ack: 2 }], /acknowledges 2; only 1/],
  [
    "an acknowledgement that goes back",
    [
      { ...stamped, seq: 1, data: 10 },
      { ...answered, ack: 11, window: 1000 },
      { ...answered, ack: 5, window: 1000 },
    ],
    /acknowledges 5, after 11/,
  ],
  ["a window that shrinks", [{ ...answered, ack: 1, window: 990 }], /shrinks its window: it ended at 8001/],
  [
    "a SACK block of what was never sent",
    [{ ...answered, ack: 1, window: 1000, options: [...stamps(9, 5), ...sack(1, 9)] }],
    /never sent/,
  ],
  [
    "a second SACK block of what is acknowledged",
    [
      { ...stamped, seq: 1, data: 100 },
      { ...answered, ack: 51, window: 1000, options: [...stamps(9, 5), ...sack(61, 71, 1, 11)] },
    ],
    /acknowledged already/,
  ],
  ["no timestamp", [{ seq: 1, ack: 1 }], /has no timestamp/],
  ["a timestamp that goes back", [{ seq: 1, ack: 1, options: stamps(4, 9) }], /goes back from 5 to 4/],
  ["an echo of no timestamp", [{ seq: 1, ack: 1, options: stamps(5, 8) }], /echoes a timestamp \(8\)/],
])("%s: told", (_what, segments, text) => {
  expect(observer.faults).toEqual([]);
  for (const segment of segments) send(segment);
  expect(observer.faults.join("\n")).toMatch(text);
});

/** Data up to the window's end, which is at 8,001, and a little more. */
function beyondWindow(): Given[] {
  const more: Given[] = [];
  for (let seq = 1401; seq < 9000; seq += 1400) more.push({ ...stamped, seq, data: 1400 });
  return more;
}
