/** Captures from TypeScript: errors in words, counters, and a file that Wireshark reads. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { captureCounterNames, startCapture } from "../../src/layer3-ip/capture.ts";
import { createWire } from "../../src/layer3-ip/links/mem.ts";
import { hasProgram } from "../support/netns.ts";
import { objections, readCapture } from "../support/packet-tools.ts";
import { Station } from "./station.ts";

const withoutTshark = !hasProgram("tshark");
if (withoutTshark) console.warn("Skipped: tshark reads a capture: no tshark here");

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "apo-capture-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe("a capture", () => {
  test("of nothing is a file with its header and its statistics", () => {
    const path = join(folder, "a.pcapng");
    const capture = startCapture(path);
    expect(capture.close()).toBeUndefined();
    expect(capture.close()).toBeUndefined();
    const bytes = readFileSync(path);
    expect(bytes.readUInt32LE(0)).toBe(0x0a0d0d0a);
    expect(bytes.readUInt32LE(8)).toBe(0x1a2b3c4d);
    expect(bytes.readUInt16LE(48)).toBe(101); // LINKTYPE_RAW
    expect(bytes.readUInt32LE(72)).toBe(5); // interface statistics
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(capture.counters()).toEqual({
      "layer3.pcap.packets": 0,
      "layer3.pcap.bytes": bytes.length,
      "layer3.pcap.missed": 0,
      "layer3.pcap.error": 0,
    });
  });

  test.each([
    ["no text", 7 as unknown as string, {}, "EINVAL", /pcap must be the path of a file/],
    ["an empty path", "", {}, "EINVAL", /pcap must be the path of a file/],
    ["a NUL in the path", "a\0b", {}, "EINVAL", /pcap must be the path of a file/],
    ["no snap length", "a", { snapBytes: 0 }, "EINVAL", /from 1 to 65535/],
    ["a folder that is not there", "none/a.pcapng", {}, "ENOENT", /ENOENT.*its folder/],
    ["a folder", ".", {}, "EINVAL", /name a file in it/],
  ])("%s is refused in words", (_, path, options, code, message) => {
    const full = typeof path === "string" && path !== "" && !path.includes("\0") ? join(folder, path) : path;
    expect(() => startCapture(full, options)).toThrow(
      expect.objectContaining({ code, message: expect.stringMatching(message) as string }),
    );
  });

  test("on a full disk says so", () => {
    expect(() => startCapture("/dev/full")).toThrow(
      expect.objectContaining({ code: "EIO", message: expect.stringContaining("disk is full") as string }),
    );
    expect(constants.errno.ENOSPC).toBe(28);
  });

  test("is whole when its thread ends without closing it", async () => {
    const path = join(folder, "a.pcapng");
    const module = new URL("../../src/layer3-ip/capture.ts", import.meta.url).href;
    const worker = new Worker(
      `import(${JSON.stringify(module)}).then(({ startCapture }) => {
         globalThis.kept = startCapture(${JSON.stringify(path)});
         process.exit(0);
       });`,
      { eval: true },
    );
    await new Promise((resolve) => worker.on("exit", resolve));
    const bytes = readFileSync(path);
    expect(bytes.readUInt32LE(72)).toBe(5);
  });
});

test("docs/capture.md lists the counters that there are", () => {
  const page = readFileSync(new URL("../../docs/capture.md", import.meta.url), "utf8");
  const listed = [...page.matchAll(/^\| `layer3\.(pcap\.\w+)` \|/gm)].map(([, name]) => name);
  expect(listed).toEqual([...captureCounterNames]);
});

describe("a link's capture", () => {
  /** A datagram to an open port and one to another, captured on both sides of a wire. */
  function exchange(): { near: string; far: string; counters: Record<string, number> } {
    const near = join(folder, "near.pcapng");
    const far = join(folder, "far.pcapng");
    const wire = createWire();
    const a = new Station(wire, "10.0.0.1/24", 1024, near);
    const b = new Station(wire, "10.0.0.2/24", 1024, far);
    b.port.openUdpPort(7);
    a.push("10.0.0.2", 1000, 7, Buffer.from("to an open port"));
    a.push("10.0.0.2", 1000, 8, Buffer.from("to nobody"));
    a.port.flush();
    expect(b.receive(1)[0]?.payload.toString()).toBe("to an open port");
    expect(a.receive(1)[0]?.payload.includes("to nobody")).toBe(true);
    expect([a.close(), b.close()]).toEqual([0, 0]);
    return { near, far, counters: b.link.counters() };
  }

  test("has what came and what went, and is counted", () => {
    const { far, counters } = exchange();
    expect(counters).toMatchObject({
      "layer3.pcap.packets": 3,
      "layer3.pcap.missed": 0,
      "layer3.pcap.error": 0,
    });
    expect(counters["layer3.pcap.bytes"]).toBe(statSync(far).size);
  });

  test("on a path that cannot be is refused before the link is opened", () => {
    const pcap = join(folder, "none", "a.pcapng");
    const wire = createWire();
    expect(() => new Station(wire, "10.0.0.1/24", 1024, pcap)).toThrow(
      expect.objectContaining({ code: "ENOENT" }),
    );
    expect(wire.endpoints).toBe(0);
  });

  test.skipIf(withoutTshark)("is what tshark reads: directions, reasons, nothing malformed", async () => {
    const { near, far } = exchange();
    const fields = ["frame.packet_flags_direction", "udp.dstport", "frame.comment"];
    const received = "0x00000001";
    const sent = "0x00000002";
    expect(await readCapture(far, fields)).toEqual([
      [received, "7", ""],
      [received, "8", "rx.dropped.unopened"],
      [sent, "8", ""], // the ICMP error, which quotes the packet
    ]);
    expect((await readCapture(near, fields)).map(([direction]) => direction)).toEqual([sent, sent, received]);
    for (const file of [near, far]) expect(await objections(file)).toEqual([]);
  });
});

test.skipIf(withoutTshark)("tshark reads a capture's header and end without complaint", () => {
  const path = join(folder, "a.pcapng");
  startCapture(path).close();
  expect(execFileSync("tshark", ["-n", "-r", path], { stdio: ["ignore", "pipe", "pipe"] }).length).toBe(0);
  const about = execFileSync("capinfos", ["-E", "-t", path], { encoding: "utf8" });
  expect(about).toContain("Raw IP");
  expect(about).toContain("pcapng");
});
