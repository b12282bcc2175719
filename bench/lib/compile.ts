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
  wire: ["wire.c", "super_packet.c"],
  echo_client: ["echo_client.c"],
  bulk_peer: ["bulk_peer.c"],
  herd: ["herd.c"],
} as const;

/** What the fan-out bench is made of. */
export const streamTools = ["publisher", "udp_sink", "rtsp_readers"] as const;
export type StreamTools = Tools<(typeof streamTools)[number]>;

export type ToolName = keyof typeof toolSources;
export type Tools<Name extends ToolName = ToolName> = Readonly<Record<Name, string>>;

/** Compiles some of the shared tools; the paths of the programs. */
export async function compileTools<Name extends ToolName>(
  workshop: Workshop,
  names: readonly Name[],
): Promise<Tools<Name>> {
  const folder = join(import.meta.dirname, "tools");
  const programs: Partial<Record<Name, string>> = {};
  for (const name of names) {
    programs[name] = await workshop.compile(
      name,
      toolSources[name].map((file) => join(folder, file)),
    );
  }
  return programs as Tools<Name>;
}
