/** How connections begin and end between our TCP and the kernel's: half-closes, resets, refusals, very many at once. */
import { expect, test } from "vitest";
import { Child } from "../../bench/lib/children.ts";
import { at } from "../support/tcp-words.ts";
import type { TcpGround } from "./tcp-ground.ts";

const connections = 1000;
const nobody = 9;

export function closingCases(own: string, far: string, ground: () => TcpGround): void {
  test("who has ended one side still hears the other", async () => {
    const { app, kernel, small } = ground();
    const { file, bytes, sha256 } = small;
    const ours = await app.ask({ do: "serve", what: "echo" });
    const heard = await kernel.ask({ do: "exchange", to: at(own, ours.port), file, half: true });
    expect(heard, await app.show()).toEqual({ bytes, sha256, how: "end" });
    const theirs = await kernel.ask({ do: "serve", what: "echo" });
    const hearing = await app.ask({ do: "exchange", to: at(far, theirs.port), file, half: true });
    expect(hearing, await app.show()).toEqual({ bytes, sha256, how: "end" });
  });

  test("a reset is told as one, whoever sends it", async () => {
    const { app, kernel } = ground();
    for (const [server, client, address] of [
      [app, kernel, own],
      [kernel, app, far],
    ] as const) {
      const { ended } = await server.ask({ do: "ended", count: 0 });
      const { port } = await server.ask({ do: "serve", what: "echo" });
      await client.ask({ do: "reset", to: at(address, port), text: "hello" });
      const last = await server.ask({ do: "ended", count: ended + 1 });
      expect(last, await app.show()).toMatchObject({ bytes: 5, how: "reset" });
    }
  });

  test("a port that nobody listens on refuses, both ways", async () => {
    const { app, kernel } = ground();
    const refused = { code: "ECONNREFUSED" };
    const asked = kernel.ask({ do: "exchange", to: at(own, nobody), text: "?" });
    await expect(asked).rejects.toMatchObject(refused);
    const asking = app.ask({ do: "exchange", to: at(far, nobody), text: "?" });
    await expect(asking).rejects.toMatchObject(refused);
  });

  test("a thousand connections at once are all served", async () => {
    const { app, far: room, tools } = ground();
    const { port } = await app.ask({ do: "serve", what: "echo" });
    const client = new Child(room.command([tools.echo_client, own, String(port), "64"]), { name: "clients" });
    await client.answer<{ ready: boolean }>();
    const opened = await client.ask<{ open: number; failed: number }>(`open ${connections}`);
    expect(opened, await app.show()).toMatchObject({ open: connections, failed: 0 });
    const run = await client.ask<{ requests: number; broken: number; unanswered: number }>("run 1000");
    expect(run, await app.show()).toMatchObject({ broken: 0, unanswered: 0 });
    expect(run.requests).toBeGreaterThanOrEqual(connections);
    await client.stop();
  });
}
