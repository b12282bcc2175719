/**
 * The habits of the tree, held by a test: file headers, lengths, which layer may import which, nothing left over
 * from work in progress, and lists in the docs that agree with the code.
 *
 * It reads the sources as text and imports nothing of them but the list of error codes.
 */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { errorCodes } from "../src/layer1-app/errors.ts";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const notOurs = new Set(["node_modules", "dist", "build", ".git", ".cache", "api", "corpus", "coverage"]);

/** Every file of the tree below `folder`, as paths from the root. */
function filesBelow(folder: string): string[] {
  const found: string[] = [];
  const path = join(root, folder);
  if (!existsSync(path)) return found;
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    if (notOurs.has(entry.name)) continue;
    const name = join(folder, entry.name);
    if (entry.isDirectory()) found.push(...filesBelow(name));
    else if (entry.isFile()) found.push(name);
  }
  return found.sort();
}

const read = (path: string): string => readFileSync(join(root, path), "utf8");
const isTypeScript = (path: string): boolean => path.endsWith(".ts");
const isScript = (path: string): boolean => /\.(ts|mts|js|mjs)$/.test(path);
const isCpp = (path: string): boolean => /\.(cc|h|c)$/.test(path);

const codeFolders = ["src", "test", "bench", "examples", "scripts", "bin", "native"];
const code = codeFolders.flatMap(filesBelow).filter((path) => isScript(path) || isCpp(path));
const sources = filesBelow("src").filter(isTypeScript);
const texts = [...code, ...filesBelow("docs"), ...filesBelow(".ci"), ...topLevelTexts()];

function topLevelTexts(): string[] {
  const names = readdirSync(root).filter((name) => /\.(md|json|ts)$|^LICENSE$/.test(name));
  return names.filter((name) => name !== "package-lock.json" && statSync(join(root, name)).isFile());
}

describe("files", () => {
  test("there are some: the lists below are not empty", () => {
    expect(code.length).toBeGreaterThan(40);
    expect(sources.length).toBeGreaterThan(20);
  });

  test("each starts with a comment that says what it is for", () => {
    const bare = code.filter((path) => !/^(#!.*\n)?(\/\*|\/\/ )/.test(read(path)));
    // A C++ source says it in its own header file, where there is one.
    expect(
      bare.filter((path) => !existsSync(join(root, path.replace(/\.cc$/, ".h"))) || isScript(path)),
    ).toEqual([]);
  });

  // The formatters hold code to 110 and 100 columns; comments and strings may run a little on, tables in them more.
  test("lines are at most 120 columns", () => {
    const long: string[] = [];
    for (const path of code) {
      for (const [at, line] of read(path).split("\n").entries()) {
        const isTable = /^\s*(\*|\/\/) \|/.test(line);
        if (!isTable && [...line].length > 120) long.push(`${path}:${at + 1} has ${line.length} columns`);
      }
    }
    expect(long).toEqual([]);
  });

  test("none in src or native is longer than 600 lines", () => {
    const long = code.filter((path) => /^(src|native)\//.test(path) && read(path).split("\n").length > 600);
    expect(long).toEqual([]);
  });

  test("functions are at most 70 lines", () => {
    expect(code.filter((path) => !/(^|\/)test\//.test(path)).flatMap((path) => longFunctions(path))).toEqual(
      [],
    );
  });

  test("the search for long functions finds them", () => {
    const body = "  work();\n".repeat(80);
    const method = "    work();\n".repeat(80);
    expect(longFunctions("a.ts", `\nexport async function f(a: A): B {\n${body}}\n`)).toEqual(["a.ts:2"]);
    expect(longFunctions("a.ts", `class C {\n  f(\n    a: A,\n  ): B {\n${method}  }\n}\n`)).toEqual([
      "a.ts:4",
    ]);
    expect(longFunctions("a.cc", `int C::f(int a) const {\n${body}}\n`)).toEqual(["a.cc:1"]);
    expect(longFunctions("a.ts", `const table = {\n${body}}\nclass C {\n${body}}\n`)).toEqual([]);
  });

  test("what is run by its name is executable, and nothing else is", () => {
    const executable = [...code, ...filesBelow(".ci"), ...filesBelow("docs"), ...topLevelTexts()].filter(
      (path) => (statSync(join(root, path)).mode & 0o111) !== 0,
    );
    expect(executable.sort()).toEqual([".ci/run", "bin/apo.js"]);
  });
});

describe("nothing is left over from work in progress", () => {
  // Written in two parts, so that this file does not find itself.
  const banned: [what: string, pattern: RegExp, only: (path: string) => boolean][] = [
    [
      "a test run alone",
      new RegExp(`\\b(test|it|describe)\\.${"only"}\\b`),
      (path) => path.startsWith("test/"),
    ],
    ["a note to do something", new RegExp(`\\b(${"TO"}DO|${"FIX"}ME|${"XX"}X)\\b`), () => true],
    ["a debugger statement", new RegExp(`^\\s*${"debug"}ger\\b`, "m"), isScript],
    [
      "a path of one machine",
      new RegExp(`(^|[\\s"'\`(=])/(${"wo"}rk|${"ro"}ot|${"ho"}me)/`, "m"),
      () => true,
    ],
    ["a scratch path", new RegExp(`["'\`]/${"t"}mp/`), (path) => !path.startsWith("test/")],
    ["a registry's host", new RegExp(`${"registry"}\\.[a-z]+\\.(org|com)`), () => true],
  ];

  test.each(banned)("%s", (_what, pattern, only) => {
    expect(texts.filter((path) => only(path) && pattern.test(read(path)))).toEqual([]);
  });

  test("the lock file names no registry", () => {
    expect(read("package-lock.json")).not.toContain('"resolved"');
  });
});

describe("layers", () => {
  // Errors are everybody's: one class with a code, which knows nothing but itself.
  const forAll = ["src/layer1-app/errors.ts"];
  const mayImport: Record<string, (target: string) => boolean> = {
    "layer1-app": (target) =>
      target === "src/layer2-transport/index.ts" ||
      /^src\/layer3-ip\/fanout(-types)?\.ts$/.test(target) ||
      target.startsWith("src/layer1-app/"),
    "layer2-transport": (target) => /^src\/(layer2-transport|layer3-ip)\//.test(target),
    "layer3-ip": (target) => target.startsWith("src/layer3-ip/"),
    // `apo sim` is the face of layer 2's simulation, which no app needs.
    cli: (target) => /^src\/(cli|layer1-app|layer2-transport\/simulation)\/|^src\/index\.ts$/.test(target),
    "index.ts": (target) => /^src\/(layer1-app|layer2-transport\/index\.ts|layer3-ip\/fanout)/.test(target),
  };

  test("each folder of src is one of the known layers", () => {
    expect(readdirSync(join(root, "src")).filter((name) => !(name in mayImport))).toEqual([]);
  });

  test.each(Object.keys(mayImport))("%s imports only what it may", (layer) => {
    const wrong: string[] = [];
    for (const path of sources.filter((source) => source.split("/")[1] === layer)) {
      for (const target of importsOf(path)) {
        if (!mayImport[layer]?.(target) && !forAll.includes(target)) wrong.push(`${path} imports ${target}`);
      }
    }
    expect(wrong).toEqual([]);
  });

  test("only layer3-ip/native.ts loads the addon", () => {
    const loads = sources.filter((path) =>
      /rawsock\.node|\.dlopen\(|createRequire\(/.test(withoutComments(path)),
    );
    expect(loads).toEqual(["src/layer3-ip/native.ts"]);
  });

  test("native.ts is imported within layer3-ip only", () => {
    const importers = sources.filter((path) => importsOf(path).includes("src/layer3-ip/native.ts"));
    expect(importers.filter((path) => !path.startsWith("src/layer3-ip/"))).toEqual([]);
  });
});

describe("documents", () => {
  test("docs/errors.md lists every error code once, and no other", () => {
    const listed = [...read("docs/errors.md").matchAll(/^\| `(E[A-Z]+)` \|/gm)].map((match) => match[1]);
    expect(listed.sort()).toEqual(Object.keys(errorCodes).sort());
  });

  test("CHANGELOG.md keeps to Keep a Changelog, the newest version first", () => {
    const text = read("CHANGELOG.md");
    expect(text).toMatch(/^# Changelog\n/);
    const versions = [...text.matchAll(/^## (.*)$/gm)].map((match) => match[1] ?? "");
    expect(versions.length).toBeGreaterThan(0);
    for (const version of versions)
      expect(version).toMatch(/^\[(Unreleased|\d+\.\d+\.\d+)\]( - \d{4}-\d\d-\d\d)?$/);
    const kinds = [...text.matchAll(/^### (.*)$/gm)].map((match) => match[1]);
    const known = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];
    expect(kinds.filter((kind) => !known.includes(kind ?? ""))).toEqual([]);
  });

  test("links between the documents lead somewhere", () => {
    const broken: string[] = [];
    for (const path of texts.filter((text) => text.endsWith(".md"))) {
      for (const match of read(path).matchAll(/\]\((?!https?:|#|mailto:)([^)#\s]+)[^)]*\)/g)) {
        const target = join(dirname(join(root, path)), match[1] ?? "");
        if (!existsSync(target)) broken.push(`${path}: ${match[1]}`);
      }
    }
    expect(broken).toEqual([]);
  });

  test("docs/dependencies.md names every dependency", () => {
    const manifest = JSON.parse(read("package.json")) as Record<string, Record<string, string>>;
    const text = read("docs/dependencies.md");
    const names = Object.keys({ ...manifest.dependencies, ...manifest.devDependencies });
    expect(names.filter((name) => !text.includes(`\`${name}\``))).toEqual([]);
  });
});

/** The source with its comments cut out (strings with `//` in them lose their ends, which harms nobody here). */
function withoutComments(path: string): string {
  return read(path)
    .replace(/\/\*[\s\S]*?\*\//g, "")
    .replace(/(^|\s)\/\/.*$/gm, "");
}

/** The files that a source imports by a relative path, as paths from the root. */
function importsOf(path: string): string[] {
  const pattern = /(?:\bfrom\s*|\bimport\s*\(?\s*|\bnew URL\(\s*)["'](\.{1,2}\/[^"']+\.[tj]s)["']/g;
  return [...withoutComments(path).matchAll(pattern)].map((match) =>
    relative(root, join(root, dirname(path), match[1] ?? "")),
  );
}

/**
 * Functions and methods of more than 70 lines, as `path:line`. The formatters set the closing brace under the line
 * that opens the body, so indentation is enough to find both.
 */
function longFunctions(path: string, text = read(path)): string[] {
  const long: string[] = [];
  const lines = text.split("\n");
  // In C++ an indented function is a method in a header: short ones only, and clang-format indents them by two.
  const closing = /^( {0,2})\}$/;
  for (const [at, line] of lines.entries()) {
    const space = closing.exec(line)?.[1];
    if (space === undefined) continue;
    let start = at - 1;
    while (start >= 0 && !isAtIndent(lines[start] ?? "", space)) start--;
    const opener = (lines[start] ?? "").trim();
    // A function's opener ends its parameter list; a class's, an object's or a block's is told apart by its word.
    const isFunction = /\).*\{$/.test(opener) && !/^(if|for|while|switch|catch|\} )/.test(opener);
    if (at - start > 70 && isFunction) long.push(`${path}:${start + 1}`);
  }
  return long;
}

function isAtIndent(line: string, space: string): boolean {
  return line.startsWith(space) && /\S/.test(line[space.length] ?? "") && !/^\s*(\/\/|\*|#)/.test(line);
}
