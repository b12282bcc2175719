/**
 * Child processes of a bench: started, spoken to by lines of JSON, and never left behind.
 *
 * Knows nothing of networks; a command that must run in a namespace comes with its prefix already.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";

const keptErrorBytes = 4096;
const stopMs = 3000;
const running = new Set<Child>();

export type Command = readonly [program: string, ...args: string[]];

export interface ChildOptions {
  /** Shown in errors. */
  readonly name: string;
  /** How long an answer may take, in milliseconds (30,000). */
  readonly answerMs?: number;
}

/** A running process. `pid` is that of the program itself: every prefix in use replaces itself by what it starts. */
export class Child {
  readonly name: string;
  readonly #process: ChildProcess;
  readonly #lines: string[] = [];
  readonly #answerMs: number;
  #waiting: (() => void) | undefined;
  #errors = "";
  #ended: string | undefined;
  readonly #end: Promise<void>;

  constructor(command: Command, options: ChildOptions) {
    const [program, ...args] = withParentDeath(command);
    this.name = options.name;
    this.#answerMs = options.answerMs ?? 30_000;
    this.#process = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"], env: environment() });
    this.#end = new Promise((resolve) => {
      const finish = (how: string) => {
        this.#ended ??= how;
        running.delete(this);
        this.#waiting?.();
        resolve();
      };
      this.#process.on("error", (error) => finish(`could not start: ${error.message}`));
      this.#process.on("close", (code, signal) =>
        finish(signal ? `ended by ${signal}` : `ended with ${code}`),
      );
    });
    this.#process.stdin!.on("error", () => {}); // it ended; `#end` says how
    this.#process.stderr!.on("data", (bytes: Buffer) => {
      this.#errors = (this.#errors + bytes.toString()).slice(-keptErrorBytes);
    });
    createInterface({ input: this.#process.stdout! }).on("line", (line) => {
      this.#lines.push(line);
      if (this.#lines.length > 1000) this.#lines.shift(); // a talkative server that nobody asks
      this.#waiting?.();
    });
    running.add(this);
  }

  get pid(): number {
    return this.#process.pid ?? 0;
  }

  /** Throws when the process has ended. */
  check(): void {
    if (this.#ended !== undefined) throw this.#failure(this.#ended);
  }

  /** Sends a line, without waiting. */
  tell(line: string): void {
    this.check();
    this.#process.stdin!.write(`${line}\n`);
  }

  /** The next line of stdout, as JSON. Throws when the process ends first or keeps silent. */
  async answer<T>(): Promise<T> {
    return JSON.parse(await this.line()) as T;
  }

  /** The next line of stdout. Throws when the process ends first or keeps silent. */
  async line(): Promise<string> {
    const deadline = Date.now() + this.#answerMs;
    while (this.#lines.length === 0) {
      this.check();
      const left = deadline - Date.now();
      if (left <= 0) throw this.#failure(`gave no answer in ${this.#answerMs} ms`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#waiting = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.#waiting = undefined;
    }
    return this.#lines.shift()!;
  }

  ask<T>(line: string): Promise<T> {
    this.tell(line);
    return this.answer<T>();
  }

  /** Ends it, politely first. Does nothing when it has ended. */
  async stop(): Promise<void> {
    if (this.#ended !== undefined) return;
    this.#process.stdin!.end();
    this.#process.kill("SIGTERM");
    const timer = setTimeout(() => this.kill(), stopMs);
    await this.#end;
    clearTimeout(timer);
  }

  kill(): void {
    if (this.#ended === undefined) this.#process.kill("SIGKILL");
  }

  #failure(how: string): Error {
    const said = this.#errors.trim();
    return new Error(`${this.name} ${how}${said ? `; it said:\n${said}` : ""}`);
  }
}

/** The kernel ends the child should this process vanish without a chance to. */
function withParentDeath(command: Command): Command {
  const setpriv = "/usr/bin/setpriv";
  return existsSync(setpriv) ? [setpriv, "--pdeathsig", "KILL", "--", ...command] : command;
}

/** Children that look for `node` find the one that runs the bench. */
function environment(): NodeJS.ProcessEnv {
  const folder = process.execPath.slice(0, process.execPath.lastIndexOf("/"));
  return { ...process.env, PATH: `${folder}:${process.env.PATH ?? ""}` };
}

/** Runs a command to its end and returns its stdout; throws with its stderr when it fails. */
export async function runToEnd(command: Command): Promise<string> {
  const [program, ...args] = command;
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  let errors = "";
  child.stdout.on("data", (bytes: Buffer) => {
    output += bytes.toString();
  });
  child.stderr.on("data", (bytes: Buffer) => {
    errors += bytes.toString();
  });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", resolve);
  });
  if (code !== 0) throw new Error(`${command.join(" ")} failed (${code}): ${errors.trim()}`);
  return output;
}

/** Ends whatever is still running: after a failure, at Ctrl-C. */
export async function stopAllChildren(): Promise<void> {
  await Promise.all([...running].map((child) => child.stop()));
}

/** The same without waiting, for the last moment of the process. */
export function killAllChildren(): void {
  for (const child of running) child.kill();
}
