/** Captures from TypeScript: errors in words, counters, and a file that Wireshark reads. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { captureCounterNames, startCapture } from "../../src/layer3-ip/capture.ts";
import { hasProgram } from "../support/netns.ts";

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

const withoutTshark = !hasProgram("tshark");
if (withoutTshark) console.warn("Skipped: tshark reads a capture: no tshark here");
test.skipIf(withoutTshark)("tshark reads a capture's header and end without complaint", () => {
  const path = join(folder, "a.pcapng");
  startCapture(path).close();
  expect(execFileSync("tshark", ["-n", "-r", path], { stdio: ["ignore", "pipe", "pipe"] }).length).toBe(0);
  const about = execFileSync("capinfos", ["-E", "-t", path], { encoding: "utf8" });
  expect(about).toContain("Raw IP");
  expect(about).toContain("pcapng");
});
