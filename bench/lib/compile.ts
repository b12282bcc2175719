/**
 * Compiles the bench's C programs into a folder of the run's own, and takes the folder away again.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runToEnd } from "./children.ts";

const flags = ["-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror"];

export interface Workshop {
  /** Compiles `sources` (paths) into a program called `name`; returns its path. */
  compile(name: string, sources: readonly string[]): Promise<string>;
  close(): void;
}

/** A temporary folder for programs. Throws a clear sentence when there is no C compiler. */
export async function openWorkshop(): Promise<Workshop> {
  await runToEnd(["cc", "--version"]).catch(() => {
    throw new Error(
      "this bench compiles small C programs and found no `cc`; install gcc (Debian: apt install gcc)",
    );
  });
  const folder = mkdtempSync(join(tmpdir(), "apo-bench-"));
  const remove = () => rmSync(folder, { recursive: true, force: true });
  process.once("exit", remove); // a run that was interrupted leaves nothing either
  return {
    async compile(name, sources) {
      const program = join(folder, name);
      await runToEnd(["cc", ...flags, "-o", program, ...sources]);
      return program;
    },
    close() {
      process.off("exit", remove);
      remove();
    },
  };
}

/** The shared C programs of `bench/lib/tools`, by name. */
export const toolSources = {
  publisher: ["publisher.c", "stream.c", "samples.c", "rtsp_client.c"],
  udp_sink: ["udp_sink.c", "tcx_counter.c", "samples.c"],
  rtsp_readers: ["rtsp_readers.c", "interleaved_counter.c", "samples.c", "rtsp_client.c"],
} as const;

export type ToolName = keyof typeof toolSources;
export type Tools = Readonly<Record<ToolName, string>>;

/** Compiles all shared tools; the paths of the programs. */
export async function compileTools(workshop: Workshop): Promise<Tools> {
  const folder = join(import.meta.dirname, "tools");
  const programs: Partial<Record<ToolName, string>> = {};
  for (const name of Object.keys(toolSources) as ToolName[]) {
    programs[name] = await workshop.compile(
      name,
      toolSources[name].map((file) => join(folder, file)),
    );
  }
  return programs as Tools;
}
