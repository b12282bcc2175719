/** The link within a thread: order, posting while taking, growing. */
import { expect, test } from "vitest";
import { createLocalLink, type LocalLink } from "../../src/layer2-transport/local-link.ts";

function takeInto(link: LocalLink, most: number, into: number[][]): number {
  return link.take(most, (words, at) => into.push([...words.subarray(at, at + 8)]));
}

test("what one end posts the other takes, whole and in order", () => {
  let posted = 0;
  const { worker, app } = createLocalLink(3, () => {
    posted += 1;
  });
  expect([worker.peer, app.peer]).toEqual([3, 3]);
  for (let i = 0; i < 1000; i += 1) worker.post(17, i, i + 1, i + 2, i + 3, i + 4, -i, i + 6);
  app.post(4, 9, 8, 7, 6, 5, 4, 3);
  expect(posted).toBe(1001);
  const up: number[][] = [];
  expect(takeInto(app, 300, up)).toBe(300);
  expect(takeInto(app, 10_000, up)).toBe(700);
  expect(takeInto(app, 1, up)).toBe(0);
  expect(up).toEqual(
    Array.from({ length: 1000 }, (_, i) => [17, i, i + 1, i + 2, i + 3, i + 4, 0 - i, i + 6]),
  );
  const down: number[][] = [];
  expect(takeInto(worker, 10, down)).toBe(1);
  expect(down).toEqual([[4, 9, 8, 7, 6, 5, 4, 3]]);
});

test("posting while a descriptor is looked at does not change it, and comes in its turn", () => {
  const { worker, app } = createLocalLink(0, () => {});
  for (let i = 0; i < 3; i += 1) worker.post(17, i, 0, 0, 0, 0, 0, 0);
  const seen: number[] = [];
  const taken = app.take(2000, (words, at) => {
    const sockfd = words[at + 1] as number;
    // Enough that the queue must grow in the middle.
    if (sockfd < 3) for (let i = 0; i < 300; i += 1) worker.post(17, 1000 + sockfd, 0, 0, 0, 0, 0, 0);
    expect(words[at + 1]).toBe(sockfd);
    seen.push(sockfd);
  });
  expect(taken).toBe(903);
  expect(seen.slice(0, 3)).toEqual([0, 1, 2]);
  for (let i = 0; i < 3; i += 1) expect(seen.filter((sockfd) => sockfd === 1000 + i).length).toBe(300);
});

test("what is left at the end can be taken at once", () => {
  const { worker, app } = createLocalLink(0, () => {});
  for (let i = 0; i < 10; i += 1) worker.post(17, i, 0, 0, 0, 0, 0, 0);
  const left: number[] = [];
  app.takeAll((words, at) => left.push(words[at + 1] as number));
  expect(left).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  app.close();
  expect(app.isClosed).toBe(true);
});
