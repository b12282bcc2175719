/** The `apo` command: its help (snapshots), what it says to a wrong command line, ports taken, signals. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, it } from "vitest";
import { readRelayArguments } from "../../src/cli/relay.ts";
import { suggest } from "../../src/cli/usage.ts";

const program = fileURLToPath(new URL("../../src/cli/apo.ts", import.meta.url));
const running = new Set<ChildProcess>();

afterEach(() => {
  for (const child of running) child.kill("SIGKILL");
});

function start(...args: string[]): ChildProcess {
  const child = spawn(process.execPath, [program, ...args], { stdio: ["ignore", "pipe", "pipe"] });
  running.add(child);
  child.once("exit", () => running.delete(child));
  return child;
}

async function finish(child: ChildProcess): Promise<{ code: number | null; out: string; err: string }> {
  const output = { out: "", err: "" };
  child.stdout?.on("data", (chunk) => {
    output.out += String(chunk);
  });
  child.stderr?.on("data", (chunk) => {
    output.err += String(chunk);
  });
  const [code] = (await once(child, "close")) as [number | null];
  return { code, ...output };
}

/** The first line of a child's output that matches. */
async function line(child: ChildProcess, pattern: RegExp): Promise<RegExpExecArray> {
  if (child.stdout === null) throw new Error("it has no output");
  for await (const text of createInterface(child.stdout)) {
    const match = pattern.exec(text);
    if (match !== null) return match;
  }
  throw new Error(`it ended without saying ${pattern}`);
}

describe("help", () => {
  it.each([[["--help"]], [["relay", "--help"]], [["run", "--help"]], [["doctor", "--help"]]])(
    "%j",
    async (args) => {
      const { code, out, err } = await finish(start(...args));
      expect([code, err]).toEqual([0, ""]);
      expect(out).toMatchSnapshot();
      expect(out.split("\n").filter((one) => one.length > 120)).toEqual([]);
    },
  );

  it("--version", async () => {
    expect(await finish(start("--version"))).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^\d+\.\d+\.\d+\n$/),
    });
  });
});

describe("a wrong command line ends with 2 and says what is wrong", () => {
  it.each([
    [["rely"], 'apo: there is no command "rely" (did you mean "relay"?)\nTry: apo --help\n'],
    [
      ["relay", "--prot=1"],
      'apo relay: there is no option "--prot" (did you mean "--port"?)\nTry: apo relay --help\n',
    ],
    [["relay", "cam"], 'apo relay: "cam" belongs to no option\nTry: apo relay --help\n'],
  ])("%j", async (args, err) => {
    expect(await finish(start(...args))).toEqual({ code: 2, out: "", err });
  });

  it.each([
    [["--port", "x"], '--port takes a whole number from 0 to 65535, not "x"'],
    [["--port", "70000"], '--port takes a whole number from 0 to 65535, not "70000"'],
    [["--rtp-port", "8001"], "--rtp-port takes an even port (RTCP is the next one), not 8001"],
    [["--workers", "0"], '--workers takes a whole number from 1 to 16, not "0"'],
    [["--budget", "much"], '--budget takes a size such as 512k or 4M, not "much"'],
    [["--pull", "rtsp://h/p"], "--pull takes NAME=URL, such as cam=rtsp://user:pass@10.0.0.9/stream1"],
    [["--pull", "a=rtsp://h/p", "--pull", "a=rtsp://h/q"], '--pull has "a" twice'],
    [["--demo", "--pull", "demo=rtsp://h/p"], '"demo" is the path of --demo: give --pull another name'],
    [["--colour"], 'there is no option "--colour"'],
    [["--port"], "Option '--port <value>' argument missing"],
  ])("relay %j", (args, message) => {
    expect(() => readRelayArguments(args)).toThrow(message);
  });

  it("suggests what is close, and nothing else", () => {
    expect(suggest("relai", ["relay", "help"])).toBe(' (did you mean "relay"?)');
    expect(suggest("fanout", ["relay", "help"])).toBe("");
  });
});

describe("options", () => {
  it("are what was meant", () => {
    expect(
      readRelayArguments([
        "--port=0",
        "--rtp-port",
        "9000",
        "--budget",
        "512k",
        "--pull",
        "/a/b/=rtsp://u:p=1@h/x=y",
        "--demo",
      ]),
    ).toEqual({
      relay: { port: 0, rtpPort: 9000, budgetBytes: 512 * 1024 },
      workers: undefined,
      pulls: [{ path: "a/b", url: "rtsp://u:p=1@h/x=y" }],
      demo: true,
      stats: false,
      json: false,
      environment: {},
    });
  });
});

describe("apo relay", () => {
  it.each(["SIGINT", "SIGTERM"] as const)("%s ends it with 0", async (signal) => {
    const child = start("relay", "--port", "0", "--rtp-port", "0", "--address", "127.0.0.1");
    await line(child, /RTSP on port \d+/);
    const ended = finish(child);
    child.kill(signal);
    expect(await ended).toMatchObject({ code: 0, err: "" });
  });

  it("a port that is taken is one sentence and 1", async () => {
    const taken = createServer().listen(0, "127.0.0.1");
    await once(taken, "listening");
    const { port } = taken.address() as { port: number };
    const { code, err } = await finish(
      start("relay", `--port=${port}`, "--rtp-port=0", "--address=127.0.0.1"),
    );
    taken.close();
    expect(err).toBe(
      `apo: relay: TCP port ${port} (RTSP): taken by another program; choose another with --port\n`,
    );
    expect(code).toBe(1);
  });

  it("--demo publishes and says how to play; --pull reads it from there; Ctrl-C ends all", async () => {
    const first = start("relay", "--port=0", "--rtp-port=0", "--address=127.0.0.1", "--demo");
    const [url] = await line(first, /rtsp:\S+\/demo$/);
    const second = start("relay", "--port=0", "--rtp-port=0", "--address=127.0.0.1", `--pull=copy=${url}`);
    await line(second, /publishes copy: H264/);
    for (const child of [second, first]) {
      child.kill("SIGINT");
      expect(await once(child, "exit")).toEqual([0, null]);
    }
  });

  it("a --pull that cannot work ends with 2", async () => {
    const child = start("relay", "--port=0", "--rtp-port=0", "--address=127.0.0.1", "--pull=a=rtsps://h/p");
    const { code, err } = await finish(child);
    expect([code, err]).toEqual([
      2,
      "apo relay: pull a: rtsps:// (RTSP over TLS) is not supported yet\nTry: apo relay --help\n",
    ]);
  });

  it("--json-log writes one object a line", async () => {
    const child = start("relay", "--port=0", "--rtp-port=0", "--address=127.0.0.1", "--json-log");
    const [text] = await line(child, /^\{.*\}$/);
    expect(JSON.parse(text)).toMatchObject({ event: "listening", level: "info", port: expect.any(Number) });
    child.kill("SIGTERM");
    await once(child, "exit");
  });
});
