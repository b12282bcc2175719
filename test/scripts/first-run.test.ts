/**
 * The scripts that make a fresh clone ready: one installer at a time, what counts as missing, no compiler,
 * signals and exit codes. They run as children, in a copy of `scripts/` with a root of its own.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

const repository = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
let root = "";

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "apo-first-run-"));
  cpSync(join(repository, "scripts"), join(root, "scripts"), { recursive: true });
  writeFileSync(join(root, "package.json"), '{ "type": "module" }');
});

afterEach(() => rmSync(root, { recursive: true, force: true }));

interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly text: string;
}

/** A script in the copy's root, written from `source`; `ended` gives all that it printed. */
function start(source: string, env: Record<string, string> = {}) {
  const name = `script-${Math.random().toString(36).slice(2)}.mjs`;
  writeFileSync(join(root, name), source);
  const child = spawn(process.execPath, [name], {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let text = "";
  child.stdout.setEncoding("utf8").on("data", (part: string) => {
    text += part;
    child.emit("printed", text);
  });
  child.stderr.setEncoding("utf8").on("data", (part: string) => {
    text += part;
  });
  const ended = once(child, "close").then(([code, signal]): Ended => ({ code, signal, text }));
  const printed = async (words: string): Promise<void> => {
    while (!text.includes(words)) await once(child, "printed");
  };
  return { child, ended, printed };
}

describe("the lock", () => {
  const locked = `
    import { appendFileSync } from "node:fs";
    import { withLock } from "./scripts/lib/lock.js";
    await withLock(async () => {
      appendFileSync("log", "in ");
      await new Promise((resolve) => setTimeout(resolve, 30));
      appendFileSync("log", "out ");
    });`;

  test("lets one command in at a time", async () => {
    const all = await Promise.all([1, 2, 3, 4].map(() => start(locked).ended));
    expect(all.map(({ code }) => code)).toEqual([0, 0, 0, 0]);
    expect(readFileSync(join(root, "log"), "utf8")).toBe("in out ".repeat(4));
  });

  test("is taken over from a holder that died, its number used again or not", async () => {
    mkdirSync(join(root, ".cache"));
    for (const holder of ["4194999 1", `${process.pid} 1`]) {
      writeFileSync(join(root, ".cache", "lock"), holder);
      expect((await start(locked).ended).code).toBe(0);
    }
    expect(readFileSync(join(root, "log"), "utf8")).toBe("in out in out ");
  });

  test("is left by a command that fails, and by one that is killed", async () => {
    const failing = `
      import { withLock } from "./scripts/lib/lock.js";
      await withLock(async () => { throw new Error("no"); });`;
    expect((await start(failing).ended).code).toBe(1);
    const killed = start(`
      import { withLock } from "./scripts/lib/lock.js";
      await withLock(() => new Promise(() => { console.log("held"); setInterval(() => {}, 1000); }));`);
    await killed.printed("held");
    const next = start(locked);
    killed.child.kill("SIGKILL");
    expect((await killed.ended).signal).toBe("SIGKILL");
    expect((await next.ended).code).toBe(0);
  });
});

describe("missing packages", () => {
  const report = `
    import { missingPackage } from "./scripts/lib/installed.js";
    console.log(missingPackage() ?? "nothing");`;
  const lock = {
    packages: {
      "": { name: "x" },
      "node_modules/a": { version: "1.0.0" },
      "node_modules/b-for-another-system": { version: "1.0.0", optional: true },
    },
  };

  async function missing(installed: object | undefined): Promise<string> {
    writeFileSync(join(root, "package-lock.json"), JSON.stringify(lock));
    if (installed) {
      mkdirSync(join(root, "node_modules"), { recursive: true });
      writeFileSync(
        join(root, "node_modules", ".package-lock.json"),
        JSON.stringify({ packages: installed }),
      );
    }
    return (await start(report).ended).text.trim();
  }

  test("a fresh clone, a package of another version, a package not there, all there", async () => {
    expect(await missing(undefined)).toBe("no packages are installed yet");
    expect(await missing({ "node_modules/a": { version: "0.9.0" } })).toBe(
      "node_modules/a is 0.9.0, not 1.0.0",
    );
    expect(await missing({})).toBe("node_modules/a is missing");
    expect(await missing({ "node_modules/a": { version: "1.0.0" } })).toBe("nothing");
  });
});

describe("the addon's build", () => {
  test("without a compiler: one sentence that names the packages, and npm's install goes on", async () => {
    mkdirSync(join(root, "native", "rawsock"), { recursive: true });
    const child = spawn(process.execPath, [join(root, "scripts", "build-native.js")], {
      env: { PATH: join(root, "nothing-here") },
      stdio: ["ignore", "ignore", "pipe"],
    });
    let text = "";
    child.stderr.setEncoding("utf8").on("data", (part: string) => {
      text += part;
    });
    expect((await once(child, "close"))[0]).toBe(0);
    expect(text).toContain("a C++ compiler, make and Python 3 are needed");
    expect(text).toContain("`apt install g++ make python3`");
    expect(text).toContain("the host link works");
  });
});

describe("a task's child", () => {
  const parent = (child: string): string => `
    import { run } from "./scripts/lib/spawn.js";
    process.exitCode = await run(process.execPath, ["-e", ${JSON.stringify(child)}]);`;

  test("its exit code is ours; a signal that ends it counts 128 and its number", async () => {
    expect((await start(parent("process.exit(7)")).ended).code).toBe(7);
    expect((await start(parent('process.kill(process.pid, "SIGKILL")')).ended).code).toBe(137);
  });

  test.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)("%s reaches it, once", async (signal) => {
    const child = `
      let count = 0;
      process.on("${signal}", () => { count++; setTimeout(() => process.exit(40 + count), 100); });
      setInterval(() => {}, 1000);
      console.log("up");`;
    const { child: outer, ended, printed } = start(parent(child));
    await printed("up");
    // npm and a process group may both pass the same signal on.
    outer.kill(signal);
    outer.kill(signal);
    expect((await ended).code).toBe(41);
  });
});

test("an unknown task is refused with the list of those there are", async () => {
  const { code, text } = await start(`
    process.argv[2] = "no-such-task";
    await import("./scripts/run.js");`).ended;
  expect(code).toBe(1);
  expect(text).toMatch(/no task "no-such-task"; there are start, test, check/);
});
