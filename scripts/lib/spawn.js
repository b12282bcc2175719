/**
 * Children: run one, hand on signals and its exit code.
 *
 * Plain JavaScript for Node >= 18, no dependencies: it runs before anything is installed.
 */
import { spawn } from "node:child_process";
import { constants } from "node:os";
import { isatty } from "node:tty";

const forwarded = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"];
// A terminal signals its whole foreground group, npm passes the signal on as well: count those as one.
const sameSignalMs = 250;

/**
 * Runs a command with our own stdio until it ends; the number is its exit code (128 + n for signal n).
 * Signals sent to us reach it, except those that a terminal has already given to it.
 */
export function run(command, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: "inherit", ...options });
    const fromTerminal = isatty(0);
    let last = "";
    let lastMs = 0;
    const handlers = forwarded.map((signal) => {
      const handler = () => {
        if (fromTerminal && (signal === "SIGINT" || signal === "SIGQUIT")) return;
        const nowMs = Date.now();
        if (signal === last && nowMs - lastMs < sameSignalMs) return;
        last = signal;
        lastMs = nowMs;
        child.kill(signal);
      };
      process.on(signal, handler);
      return [signal, handler];
    });
    const done = () => {
      for (const [signal, handler] of handlers) process.off(signal, handler);
    };
    child.once("error", (error) => {
      done();
      reject(error);
    });
    child.once("exit", (code, signal) => {
      done();
      resolve(code ?? 128 + (constants.signals[signal] ?? 0));
    });
  });
}

/** Runs a command quietly; resolves with its exit code and what it printed on both outputs. */
export function capture(command, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], ...options });
    const parts = [];
    child.stdout.on("data", (part) => parts.push(part));
    child.stderr.on("data", (part) => parts.push(part));
    child.once("error", reject);
    child.once("close", (code, signal) => {
      const text = Buffer.concat(parts).toString();
      resolve({ code: code ?? 128 + (constants.signals[signal] ?? 0), text });
    });
  });
}
