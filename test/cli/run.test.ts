/** `apo run`: its command line, and an app that finds its arguments, its defaults and its own end. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readRunArguments } from "../../src/cli/run.ts";

const program = fileURLToPath(new URL("../../src/cli/apo.ts", import.meta.url));
const runtime = new URL("../../src/index.ts", import.meta.url).href;
let folder = "";

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "apo-run-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Runs an app of this source by `apo run`. */
function apoRun(source: string, args: string[], environment: Record<string, string> = {}) {
  const file = join(folder, "app.ts");
  writeFileSync(file, source.replace("apo-runtime", runtime));
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, "run", file, ...args], {
    encoding: "utf8",
    env: { ...process.env, ...environment },
    timeout: 30_000,
  });
  return { file, code: status, out: stdout, err: stderr };
}

describe("the command line", () => {
  it("is what was meant; what follows -- is the app's", () => {
    expect(
      readRunArguments([
        "a.ts",
        "--link=tun",
        "--address",
        "10.64.0.1/24",
        "--pool-bytes",
        "2M",
        "--",
        "7",
        "--help",
      ]),
    ).toEqual({
      file: join(process.cwd(), "a.ts"),
      args: ["7", "--help"],
      environment: { APO_LINK: "tun", APO_ADDRESS: "10.64.0.1/24", APO_POOL_BYTES: "2097152" },
    });
  });

  it.each([
    [[], "it takes the file of an app"],
    [["a.ts", "7007"], '"7007" belongs to no option: the app\'s own arguments follow --'],
    [["a.ts", "--links", "tun"], 'there is no option "--links" (did you mean "--link"?)'],
    [
      ["a.ts", "--link", "tap"],
      '--link must be one of "host", "mem", "fd", "tun", "packet", "xdp", not "tap"',
    ],
    [["a.ts", "--link", "mem"], 'link "mem" joins the runtimes of one process'],
    [["a.ts", "--device", "x"], '--device is for link "tun", and this is link "host"'],
    [["a.ts", "--link", "tun"], 'link "tun" needs address: our own on the link'],
    [
      ["a.ts", "--link", "tun", "--address", "10.64.0.1/24", "--mtu", "9"],
      "--mtu must be a whole number from 1280",
    ],
    [["a.ts", "--pool-bytes", "much"], "--pool-bytes takes a size such as 512k or 4M"],
    [["a.ts", "--workers="], "--workers takes a value"],
  ])("%j is refused", (args, message) => {
    expect(() => readRunArguments(args)).toThrow(expect.objectContaining({ name: "UsageError" }));
    expect(() => readRunArguments(args)).toThrow(message);
  });

  it("is checked together with what the environment has", () => {
    const given = { APO_LINK: "tun", APO_ADDRESS: "10.64.0.1/24" };
    expect(readRunArguments(["a.ts", "--device", "x"], given).environment).toEqual({ APO_DEVICE: "x" });
  });
});

describe("an app", () => {
  it("finds its name and arguments where Node puts them, and ends as it wants", () => {
    const source = "console.log(JSON.stringify(process.argv.slice(1))); process.exitCode = 3;";
    const { file, code, out, err } = apoRun(source, ["--workers", "1", "--", "7007", "--help"]);
    expect({ code, err }).toEqual({ code: 3, err: "" });
    expect(JSON.parse(out)).toEqual([file, "7007", "--help"]);
  });

  const app = `
    import { createRuntime } from "apo-runtime";
    const apo = await createRuntime(JSON.parse(process.argv[2] ?? "{}"));
    console.log("up");
    await apo.close();
  `;

  it("starts with the defaults it is given, and its own win", () => {
    expect(apoRun(app, ["--workers", "1"])).toMatchObject({ code: 0, out: "up\n", err: "" });
    const wrong = { APO_WORKERS: "99" };
    expect(apoRun(app, ["--", '{"workers":1}'], { APO_APP_WORKERS: "1" })).toMatchObject({
      code: 0,
      out: "up\n",
    });
    expect(apoRun(app, [], wrong)).toMatchObject({
      code: 2,
      err: "apo run: --workers must be a whole number from 1 to 16, not 99\nTry: apo run --help\n",
    });
  });

  it("that cannot start is told why in one line, and does not hang", () => {
    const { code, out, err } = apoRun(app, ["--", '{"link":"fd","fd":99999,"address":"10.0.0.1/24"}']);
    expect([code, out]).toEqual([1, ""]);
    expect(err).toBe("apo: createRuntime: fd 99999 is not open in this process\n");
  });

  it("that is not there", () => {
    const { status, stderr } = spawnSync(process.execPath, [program, "run", "nowhere.ts"], {
      encoding: "utf8",
    });
    expect([status, stderr]).toEqual([2, expect.stringContaining('there is no file "')]);
  });
});
