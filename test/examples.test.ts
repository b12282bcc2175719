/** Every example runs from source, as a newcomer would start it, and does what its first lines say. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterEach, describe, expect, test } from "vitest";
import { dial, until } from "./layer1-app/support.ts";

const folder = fileURLToPath(new URL("../examples/", import.meta.url));
const children: ChildProcess[] = [];
afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    child.kill("SIGKILL");
    await once(child, "exit");
  }
});

interface Running {
  child: ChildProcess;
  port: number;
  out(): string;
  err(): string;
}

/** Starts an example and waits until it says where it listens. */
async function start(name: string, args: string[] = [], listens = true): Promise<Running> {
  const env = { ...process.env, PORT: "0" };
  const child = spawn(process.execPath, [join(folder, `${name}.ts`), ...args], { env, stdio: "pipe" });
  children.push(child);
  let out = "";
  let err = "";
  child.stdout.on("data", (bytes) => {
    out += bytes;
  });
  child.stderr.on("data", (bytes) => {
    err += bytes;
  });
  const running = { child, port: 0, out: () => out, err: () => err };
  if (!listens) return running;
  await until(`${name} listens (${err})`, () => /port \d+\n/.test(out) || child.exitCode !== null);
  running.port = Number(/port (\d+)\n/.exec(out)?.[1]);
  expect(running.port, err).toBeGreaterThan(0);
  return running;
}

test("all of them are tested here, start with a comment, and are under 45 lines", () => {
  const names = readdirSync(folder).filter((name) => name.endsWith(".ts"));
  const here = readFileSync(fileURLToPath(import.meta.url), "utf8");
  for (const name of names) {
    const text = readFileSync(join(folder, name), "utf8");
    expect(text, name).toMatch(/^\/\*\*\n/);
    expect(text.trimEnd().split("\n").length, name).toBeLessThan(45);
    expect(here, name).toContain(`describe("${name.slice(0, -3)}"`);
  }
  expect(names.length).toBe(12);
});

describe("worker-placement", () => {
  test("its clients stand, and a question is answered by a worker that counts", async () => {
    const { port, out } = await start("worker-placement", ["0", "20"]);
    expect(out()).toContain("20 of 20 clients stand");
    const client = await dial(port);
    client.write("why\n");
    await until("an answer", () => client.text.includes("\n"));
    expect(client.text).toMatch(/^why: question \d+ of worker thread [1-9]\d*\n$/);
  });
});

describe("echo", () => {
  test("every line comes back, also to a client that ends at once", async () => {
    const { port } = await start("echo");
    const client = await dial(port);
    client.socket.end("one\r\ntwo\n");
    expect((await client.readToEnd()).toString()).toBe("one\ntwo\n");
  });

  test("a taken port is one readable line, and the process ends", async () => {
    const first = await start("echo");
    const { child, err, out } = await start("echo", [String(first.port)], false);
    await until("it ends", () => child.exitCode !== null);
    expect(child.exitCode).toBe(1);
    expect(out()).toBe("");
    expect(err().trimEnd().split("\n")).toHaveLength(1);
    expect(err()).toContain(`port ${first.port}`);
  });
});

describe("chat", () => {
  test("a line goes to all who are there", async () => {
    const { port } = await start("chat");
    const ann = await dial(port);
    ann.write("ann\n");
    await until("ann is in", () => ann.text.includes("* ann is here (1)"));
    const bob = await dial(port);
    bob.write("bob\n");
    await until("bob is in", () => bob.text.includes("* bob is here (2)"));
    ann.write("hello bob\n");
    await until("bob reads it", () => bob.text.includes("ann: hello bob\n"));
    await until("so does ann", () => ann.text.includes("ann: hello bob\n"));
    ann.socket.end();
    await until("bob sees ann leave", () => bob.text.endsWith("* ann has left\n"));
  });
});

describe("http-hello", () => {
  const get = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
  const hello = /HTTP\/1\.1 200 OK\r\n[\s\S]*?\r\n\r\nhello\n/g;

  test("split, pipelined and kept-alive requests are answered", async () => {
    const { port } = await start("http-hello");
    const client = await dial(port);
    for (const byte of get) {
      client.write(byte);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await until("one answer", () => client.text.match(hello)?.length === 1);
    client.write(get.repeat(100));
    await until("a hundred more", () => client.text.match(hello)?.length === 101);
    client.write(get.replace("Host", "Connection: close\r\nHost"));
    expect((await client.readToEnd()).toString().match(hello)).toHaveLength(102);
  });

  test("fetch and curl are content, and what is no GET is refused", async () => {
    const { port } = await start("http-hello");
    for (let i = 0; i < 3; i += 1) {
      expect(await (await fetch(`http://127.0.0.1:${port}/`)).text()).toBe("hello\n");
    }
    const bad = await dial(port);
    bad.write("POST / HTTP/1.1\r\n\r\n");
    expect((await bad.readToEnd()).toString()).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/);
    const curl = await promisify(execFile)("curl", ["-sS", `http://127.0.0.1:${port}/`]).catch(
      (error) => error,
    );
    if (curl.code === "ENOENT") return console.log("skipped the request by curl: it is not installed");
    expect(curl.stdout).toBe("hello\n");
  });
});

describe("udp-echo", () => {
  test("every datagram goes back", async () => {
    const { port } = await start("udp-echo");
    const socket = createSocket("udp4");
    const replies: string[] = [];
    socket.on("message", (bytes) => replies.push(bytes.toString()));
    socket.connect(port, "127.0.0.1");
    await once(socket, "connect");
    for (const text of ["one", "two"]) {
      socket.send(text);
      await until(`${text} came back`, () => replies.includes(text));
    }
    expect(replies).toEqual(["one", "two"]);
    socket.close();
  });
});

describe("udp-tick", () => {
  test("players get the field again and again, with everybody's moves", async () => {
    const { port } = await start("udp-tick");
    const socket = createSocket("udp4");
    let field = "";
    let ticks = 0;
    socket.on("message", (bytes) => {
      field = bytes.toString();
      ticks += 1;
    });
    socket.connect(port, "127.0.0.1");
    await once(socket, "connect");
    socket.send("move 1 0");
    socket.send("move 1 -1");
    await until("the moves are on the field", () => field === '[{"id":1,"x":2,"y":-1}]');
    const before = ticks;
    await until("it ticks on", () => ticks > before + 3);
    socket.close();
  });
});

describe("guard", () => {
  test("answers one client, drops the other and names it", async () => {
    const { child, out, err } = await start("guard", [], false);
    await until(`it ends (${err()})`, () => child.exitCode !== null);
    expect(child.exitCode).toBe(0);
    const lines = out().trimEnd().split("\n").sort();
    expect(lines).toEqual([
      "10.0.0.2: answered",
      "10.0.0.66: blacklist, 0 hops away",
      "guard: 1 blocked; listening on port 7007",
    ]);
  });

  test("a prefix that is none is one readable line", async () => {
    const { child, err } = await start("guard", ["10.0.0.0/8", "1.2.3"], false);
    await until("it ends", () => child.exitCode !== null);
    expect(child.exitCode).toBe(1);
    expect(err()).toMatch(/^guard: guard\.block, entry 2: "1\.2\.3" is not a prefix: .*\n$/);
  });
});

describe("multicast", () => {
  test("both listeners hear the clock, and it ends by itself", async () => {
    const { child, out, err } = await start("multicast", [], false);
    await until(`it ends (${err()})`, () => child.exitCode !== null);
    expect([child.exitCode, err()]).toEqual([0, ""]);
    expect(out().match(/^multicast: 10\.0\.0\.1 to 239\.7\.0\.7: \d{4}-/gm)).toHaveLength(4);
  });
});

describe("siege", () => {
  test("who wants all connections is blocked for a time, and it ends by itself", async () => {
    const { child, out, err } = await start("siege", [], false);
    await until(`it ends (${err()})`, () => child.exitCode !== null);
    expect([child.exitCode, err()]).toEqual([0, ""]);
    expect(out()).toMatch(/^siege: 10\.0\.0\.66 is blocked until \d{4}-.*: connection-flood$/m);
  });
});

describe("file-server", () => {
  const fourGigabytes = 4 * 2 ** 30;

  test("sends 4 GB of a sparse file in constant memory", { timeout: 300_000 }, async () => {
    const files = mkdtempSync(join(tmpdir(), "apo-files-"));
    try {
      writeFileSync(join(files, "big"), "");
      truncateSync(join(files, "big"), fourGigabytes);
      const { child, port } = await start("file-server", [files]);
      let received = 0;
      // One buffer for all that comes: the test must not be what uses the memory.
      const buffer = Buffer.alloc(2 ** 20);
      const onread = {
        buffer,
        callback: (bytes: number) => {
          received += bytes;
          return true;
        },
      };
      const socket = connect({ port, host: "127.0.0.1", onread } as Parameters<typeof connect>[0] & object);
      socket.end("big\n");
      await once(socket, "close");
      expect(received).toBe(fourGigabytes);
      const status = readFileSync(`/proc/${child.pid}/status`, "utf8");
      const mostMegabytes = Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) / 1024;
      expect(mostMegabytes).toBeGreaterThan(20);
      expect(mostMegabytes).toBeLessThan(300);
    } finally {
      rmSync(files, { recursive: true });
    }
  });

  test("sends nothing from outside its folder", async () => {
    const files = mkdtempSync(join(tmpdir(), "apo-files-"));
    try {
      writeFileSync(join(files, "small"), "content");
      const { port, err } = await start("file-server", [files]);
      for (const [name, content] of [
        ["small", "content"],
        ["../../../etc/hostname", ""],
        ["missing", ""],
      ]) {
        const client = await dial(port);
        client.socket.end(`${name}\n`);
        expect((await client.readToEnd()).toString()).toBe(content);
      }
      expect(err().match(/cannot send the file/g)).toHaveLength(2);
    } finally {
      rmSync(files, { recursive: true });
    }
  });
});

describe("lossy-wire", () => {
  test("says what came, what the wire did, and ends by itself", async () => {
    const { child, out, err } = await start("lossy-wire", [], false);
    await until("it ends", () => child.exitCode !== null);
    expect([child.exitCode, err()]).toEqual([0, ""]);
    const [, came = "", numbers = ""] = /^lossy-wire: (\d+) came of 100: ([\d ]+)\n/.exec(out()) ?? [];
    expect(numbers.split(" ").length).toBe(Number(came));
    const counts = ["lost", "duplicated", "corrupted", "dropped"].map((word) =>
      Number(new RegExp(`lossy-wire: (\\d+) ${word} `).exec(out())?.[1]),
    );
    const [lost = 0, duplicated = 0, , dropped = 0] = counts;
    expect(Number(came)).toBe(100 + duplicated - lost - dropped);
    expect(Math.min(...counts)).toBeGreaterThan(0);
  });

  test("a loss that is no probability is one readable line", async () => {
    const { child, err } = await start("lossy-wire", ["2"], false);
    await until("it ends", () => child.exitCode !== null);
    expect([child.exitCode, err()]).toEqual([
      1,
      "lossy-wire: createWire: loss must be a number from 0 to 1, not 2\n",
    ]);
  });
});

describe("client", () => {
  test("talks with the echo server, and ends when its input does", async () => {
    const { port } = await start("echo");
    const { child, out } = await start("client", [`127.0.0.1:${port}`], false);
    child.stdin?.write("typed\n");
    await until("both lines are back", () => out() === "hello from the client\ntyped\n");
    child.stdin?.end();
    await until("it ends", () => child.exitCode !== null);
    expect(child.exitCode).toBe(0);
  });

  test("says in one line that nobody is there", async () => {
    const { child, err } = await start("client", ["127.0.0.1:1"], false);
    await until("it ends", () => child.exitCode !== null);
    expect(child.exitCode).toBe(1);
    expect(err()).toMatch(/^client: cannot connect to 127\.0\.0\.1:1 over tcp: nobody listens there\n$/);
  });

  test("ends when the server does", async () => {
    const server = await start("echo");
    const { child, err, out } = await start("client", [`127.0.0.1:${server.port}`], false);
    await until("they have talked", () => out().length > 0);
    server.child.kill("SIGKILL");
    await until("it ends", () => child.exitCode !== null);
    expect(err()).toContain("the connection has ended");
  });
});
