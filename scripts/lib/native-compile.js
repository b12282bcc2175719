/**
 * Compiles the addon's sources that do not know Node, with sanitizers, into programs of their own.
 *
 * Which ones: all of the addon's *.cc but `*_napi.cc` and module.cc. Objects are kept in .cache by the hash of
 * what they were made from. Plain JavaScript, no dependencies.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync } from "node:fs";
import { basename, join } from "node:path";
import { addonFiles, cacheDir, nativeDir } from "./paths.js";
import { PlainError } from "./say.js";
import { capture } from "./spawn.js";

const common = [
  "-std=c++20",
  "-Wall",
  "-Wextra",
  "-Werror",
  "-pthread",
  "-g",
  "-O1",
  "-fno-omit-frame-pointer",
];

/** The files of one folder under native/rawsock whose names end so, as paths. */
export function nativeFiles(folder, ending) {
  const path = join(nativeDir, folder);
  if (!existsSync(path)) return [];
  const names = readdirSync(path).filter((name) => name.endsWith(ending));
  return names.sort().map((name) => join(path, name));
}

/** The sources without Node-API. */
function coreSources() {
  return addonFiles(/\.cc$/).filter((path) => !path.endsWith("_napi.cc") && basename(path) !== "module.cc");
}

/** Flags of the sanitizers that the tests and the fuzz targets share, so that they share objects too. */
export function addressSanitizer(command) {
  const coverage = command.startsWith("clang") ? "fuzzer-no-link," : "";
  return [`-fsanitize=${coverage}address,undefined`, "-fno-sanitize-recover=all"];
}

/** A compiler with its flags; `link(mainSource)` makes a program and resolves with its path. */
export function compiler({ command, flags, name }) {
  const folder = join(cacheDir, "native", name);
  const headers = [...addonFiles(/\.h$/), ...nativeFiles("test", ".h"), ...nativeFiles("fuzz", ".h")];
  const base = hashOf([command, ...flags, ...headers.map((path) => readFileSync(path))]);
  mkdirSync(folder, { recursive: true });

  async function invoke(args, output) {
    if (existsSync(output)) return output;
    const unfinished = `${output}.${process.pid}`;
    const { code, text } = await capture(command, [...common, ...flags, ...args, "-o", unfinished], {
      cwd: nativeDir,
    });
    if (code !== 0) throw new PlainError(`${command} failed on ${basename(output)}:\n${text.trimEnd()}`);
    renameSync(unfinished, output);
    return output;
  }

  const compile = (path, extra = []) => {
    const key = hashOf([base, ...extra, readFileSync(path)]);
    return invoke([...extra, `-I${nativeDir}`, "-c", path], join(folder, `${basename(path)}-${key}.o`));
  };

  /** Two compilers at a time: the machine that this is for has two cores. */
  async function compileAll(paths) {
    const objects = [];
    for (let at = 0; at < paths.length; at += 2) {
      objects.push(...(await Promise.all(paths.slice(at, at + 2).map((path) => compile(path)))));
    }
    return objects;
  }

  return {
    async link(mainSource, linkFlags = []) {
      const objects = [...(await compileAll(coreSources())), await compile(mainSource)];
      const program = join(folder, `${basename(mainSource, ".cc")}-${hashOf([...objects, ...linkFlags])}`);
      return invoke([...linkFlags, ...objects], program);
    },
  };
}

function hashOf(parts) {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part).update("\0");
  return hash.digest("hex").slice(0, 16);
}

/** The first of these compilers that is there. */
export async function findCompiler(commands) {
  for (const command of commands) {
    const found = await capture(command, ["--version"]).catch(() => undefined);
    if (found?.code === 0) return command;
  }
  return undefined;
}
