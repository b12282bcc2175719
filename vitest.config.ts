/**
 * How the tests run: every `test/**` file in a process of its own, two at a time. CI runs those with players and cameras
 * one at a time (APO_TEST_WORKERS=1): they work in real time and take a machine that is late for a server that
 * has failed.
 *
 * Processes and not threads: the native addon, worker threads, signals, `process.setuid` and network
 * namespaces belong to a process, and a test that crashes one must not take the others with it.
 */
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    maxWorkers: Number(process.env.APO_TEST_WORKERS ?? 2),
    testTimeout: 60_000,
    hookTimeout: 60_000,
    teardownTimeout: 20_000,
    retry: 0,
    allowOnly: false,
    passWithNoTests: false,
  },
});
