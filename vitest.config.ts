/**
 * How the tests run: every `test/**` file in a process of its own, two at a time; in CI one at a time, since players and
 * cameras work in real time and take a machine that is late for a server that has failed.
 *
 * Processes and not threads: the native addon, worker threads, signals, `process.setuid` and network
 * namespaces belong to a process, and a test that crashes one must not take the others with it.
 */
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    maxWorkers: process.env.CI === undefined ? 2 : 1,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    teardownTimeout: 20_000,
    retry: 0,
    allowOnly: false,
    passWithNoTests: false,
  },
});
