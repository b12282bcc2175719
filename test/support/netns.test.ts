/** What the tests of links stand on: namespaces, a wire between them, apps in them, the tools that look at packets. */
import { afterEach, expect, test } from "vitest";
import { startLinkApp } from "./link-app.ts";
import { closeNamespaces, createNamespace, describeInNamespaces, joinByVeth } from "./netns.ts";
import { capture, countFrames, objections, ping, withoutChecksumOffload } from "./packet-tools.ts";

const needs = { programs: ["ping", "tshark", "dumpcap", "ethtool"] };

describeInNamespaces(
  "namespaces of our own",
  () => {
    afterEach(closeNamespaces);

    test("reach each other over a veth pair; a capture of it is clean, and one with offload is not", async () => {
      const left = await createNamespace();
      const right = await createNamespace();
      await joinByVeth(
        { namespace: left, device: "left0", addresses: ["10.99.0.1/24", "fd99::1/64"] },
        {
          namespace: right,
          device: "right0",
          addresses: ["10.99.0.2/24", "fd99::2/64"],
          mac: "02:00:00:00:00:02",
        },
      );
      expect(await right.ip("link", "show", "right0")).toContain("02:00:00:00:00:02");
      for (const offload of [true, false]) {
        if (!offload) await withoutChecksumOffload(left, "left0");
        const running = await capture(left, "left0");
        for (const address of ["10.99.0.2", "fd99::2"]) {
          const { received, roundTripsMs } = await ping(left, address, { count: 2 });
          expect([received, roundTripsMs.length]).toEqual([2, 2]);
        }
        await left.run("bash", "-c", "echo hello >/dev/udp/10.99.0.2/9");
        await running.stop();
        expect(await countFrames(running.file, "icmp.type == 8")).toBe(2);
        const found = await objections(running.file, "udp && !icmp");
        expect(found.length).toBe(offload ? 1 : 0);
        await running.remove();
      }
    });

    test("nothing answers at an address that nobody has", async () => {
      const alone = await createNamespace();
      const { sent, received } = await ping(alone, "127.0.0.1", { count: 1 });
      expect([sent, received]).toEqual([1, 1]);
      const nobody = await ping(alone, "192.0.2.1", { count: 1 });
      expect(nobody.received).toBe(0);
      expect(nobody.text).toContain("unreachable");
    });

    test("an app in one is told what to do, and says what it cannot", async () => {
      const namespace = await createNamespace();
      const app = await startLinkApp(namespace, { link: "host" });
      const { port } = await app.ask({ do: "echo", port: 0 });
      expect(await app.ask({ do: "ask", to: `127.0.0.1:${port}`, text: "hello" })).toMatchObject({
        text: "hello",
      });
      expect(await app.ask({ do: "received" })).toMatchObject({ datagrams: 1, bytes: 5 });
      expect((await app.counters())["layer2.receive.bytes"]).toBe(10);
      await expect(app.ask({ do: "echo", port })).rejects.toMatchObject({ code: "EADDRINUSE" });
      await app.stop();
      await expect(startLinkApp(namespace, { workers: 99 })).rejects.toMatchObject({ code: "EINVAL" });
    });

    test("what runs in one ends with it", async () => {
      const namespace = await createNamespace();
      const cat = namespace.start(["cat"]);
      expect(await cat.ask('{"in":1}')).toEqual({ in: 1 });
      await namespace.close();
      expect(() => cat.check()).toThrow("cat ended");
    });
  },
  needs,
);
