/**
 * `npm run test:packed`: packs the package, installs it into an empty project as a stranger would, and uses it:
 * types and code are there, an echo server answers, `apo --help` speaks, the addon builds and loads.
 *
 * The last line counts: `N passed, N failed`. Plain JavaScript, run by the Node that scripts/run.js chose.
 */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { npmCommand, root } from "./lib/paths.js";
import { PlainError, runMain, say } from "./lib/say.js";
import { capture } from "./lib/spawn.js";

const echoOnce = `
import { createRuntime, framing } from "apo-runtime";
import { connect } from "node:net";
const apo = await createRuntime();
const listener = await apo.opens({
  protocol: "tcp", address: "127.0.0.1", port: 0, framing: framing.line(),
  request(sockfd, message, apo) { apo.sendto(sockfd, message.bytes); },
});
const answer = await new Promise((resolve, reject) => {
  const socket = connect(listener.port, "127.0.0.1", () => socket.write("packed\\n"));
  socket.on("error", reject).on("data", (bytes) => { socket.destroy(); resolve(String(bytes)); });
});
await apo.close();
console.log(JSON.stringify(answer));
`;

const typed = `
import { createRuntime, framing } from "apo-runtime";
const apo = await createRuntime();
await apo.opens({ protocol: "tcp", port: 0, framing: framing.line(), request() {} });
// @ts-expect-error a port is a number
await apo.opens({ protocol: "tcp", port: "seven", request() {} });
await apo.close();
`;

const steps = {
  async "npm install of the tarball"({ npm, tarball }) {
    await npm(["install", "--prefer-offline", "--no-audit", "--no-fund", "--foreground-scripts", tarball]);
  },
  async "an echo server"({ node, write }) {
    write("echo.mjs", echoOnce);
    expect(await node(["echo.mjs"]), /"packed\\n"|"packed"/);
  },
  async "apo --help"({ node }) {
    expect(await node([join("node_modules", ".bin", "apo"), "--help"]), /relay/);
  },
  async "the declarations"({ node, write }) {
    write("typed.mts", typed);
    const flags = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2024", "--skipLibCheck"];
    const types = ["--typeRoots", join(root, "node_modules", "@types"), "--types", "node"];
    await node([join(root, "node_modules/typescript/bin/tsc"), ...flags, ...types, "typed.mts"]);
  },
  async "the addon"({ node }) {
    const build = join("node_modules", "apo-runtime", "scripts", "build-native.js");
    await node([build]);
    const load = 'process.dlopen({ exports: {} }, require.resolve("apo-runtime/package.json")';
    expect(
      await node([
        "-p",
        `${load}.replace("package.json", "native/rawsock/build/Release/rawsock.node")), "loaded"`,
      ]),
      /loaded/,
    );
  },
};

function expect(text, pattern) {
  if (!pattern.test(text)) throw new PlainError(`expected ${pattern}, got:\n${text}`);
}

async function main() {
  const folder = mkdtempSync(join(tmpdir(), "apo-packed-"));
  try {
    return await smoke(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function smoke(folder) {
  const project = join(folder, "project");
  const env = { ...process.env, PATH: `${dirname(process.execPath)}:${process.env.PATH}` };
  for (const name of Object.keys(env))
    if (/^npm_(lifecycle|package|config_local)/.test(name)) delete env[name];
  const execute = async (command, args, cwd = project) => {
    const { code, text } = await capture(command, args, { cwd, env });
    if (code !== 0)
      throw new PlainError(`exit code ${code} from ${[command, ...args].join(" ")}:\n${text.trimEnd()}`);
    return text;
  };
  const npm = (args, cwd) => {
    const [command, ...first] = npmCommand();
    return execute(command, [...first, ...args], cwd);
  };
  await npm(["pack", "--pack-destination", folder], root);
  const tarball = join(folder, readdirSync(folder).find((name) => name.endsWith(".tgz")) ?? "");
  mkdirSync(project);
  const write = (name, text) => writeFileSync(join(project, name), text);
  write("package.json", '{ "name": "stranger", "version": "1.0.0", "private": true, "type": "module" }\n');

  const tools = { npm, tarball, write, node: (args) => execute(process.execPath, args) };
  let failed = 0;
  for (const [name, work] of Object.entries(steps)) {
    try {
      await work(tools);
      say(`packed, ${name}: ok`);
    } catch (error) {
      failed++;
      say(`packed, ${name}: FAILED\n${error.message}`);
    }
  }
  console.log(`${Object.keys(steps).length - failed} passed, ${failed} failed`);
  return failed ? 1 : 0;
}

await runMain(main);
