/**
 * What our TCP must do with the kernel's and with programs that everybody has, on every raw link: one list of cases.
 *
 * Beside it: `tcp-suite-closing.ts` (ends of connections), `tcp-suite-paths.ts` (bad wires, MTUs, the peer's sysctls).
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Child, Command } from "../../bench/lib/children.ts";
import { describeInNamespaces, eventually, type Namespace } from "../support/netns.ts";
import { countFrames, objections } from "../support/packet-tools.ts";
import { at } from "../support/tcp-words.ts";
import type { LinkPlan } from "./kernel-suite.ts";
import { families, farAddresses, TcpGround } from "./tcp-ground.ts";
import { closingCases } from "./tcp-suite-closing.ts";
import { pathCases } from "./tcp-suite-paths.ts";

const programs = ["cc", "curl", "iperf3", "wrk", "nginx", "socat", "tshark", "sha256sum"];
const longMs = 240_000;

export function describeTcp(plan: LinkPlan): void {
  const needs = { ...plan.needs, programs: [...programs, ...(plan.needs?.programs ?? [])] };
  describeInNamespaces(`TCP on ${plan.name}`, () => cases(plan), needs);
}

function cases(plan: LinkPlan): void {
  let ground: TcpGround;
  beforeAll(async () => {
    ground = await TcpGround.open(plan);
  }, longMs);
  afterAll(() => ground?.close(), longMs);

  for (const family of families) {
    const own = plan.own[family.at];
    const far = farAddresses[family.at];
    describe(`over ${family.name}`, () => {
      nodeCases(own, far, () => ground);
      programCases(own, far, family.curl, () => ground);
      closingCases(own, far, () => ground);
      pathCases(plan, family.at, () => ground);
    });
  }

  test("a capture of what passed has nothing malformed and no bad checksum", {
    timeout: longMs,
  }, async () => {
    const pcap = join(ground.folder, "link.pcapng");
    await ground.restart({ pcap });
    for (const { at: version } of families) {
      const { port } = await ground.app.ask({ do: "serve", what: "echo" });
      const to = at(plan.own[version], port);
      const text = "x".repeat(200_000);
      const { bytes } = await ground.kernel.ask({ do: "exchange", to, text, half: true });
      expect(bytes).toBe(text.length);
    }
    await ground.app.child.stop();
    expect(await countFrames(pcap, "tcp")).toBeGreaterThan(20);
    expect(await objections(pcap)).toEqual([]);
    await ground.restart();
  });
}

function nodeCases(own: string, far: string, ground: () => TcpGround): void {
  test("node:net talks with an echo app, whatever it says", async () => {
    const { app, kernel } = ground();
    const { port } = await app.ask({ do: "serve", what: "echo" });
    for (const bytes of [1, 1459, 1460, 65_536, 1_000_000]) {
      const text = "e".repeat(bytes);
      const answer = await kernel.ask({ do: "exchange", to: at(own, port), text, half: true });
      expect(answer, await app.show()).toMatchObject({ bytes, how: "end" });
    }
  });

  test("an app talks with node:net's echo server", async () => {
    const { app, kernel } = ground();
    const { port } = await kernel.ask({ do: "serve", what: "echo" });
    for (const bytes of [1, 1459, 1460, 65_536, 1_000_000]) {
      const text = "e".repeat(bytes);
      const answer = await app.ask({ do: "exchange", to: at(far, port), text, half: true });
      expect(answer, await app.show()).toMatchObject({ bytes, how: "end" });
    }
  });

  test("files arrive as they are, both ways, the app as the server", { timeout: longMs }, async () => {
    const { app, kernel, big } = ground();
    const { file, bytes, sha256 } = big;
    const giving = await app.ask({ do: "serve", what: "file", file });
    const got = await kernel.ask({ do: "exchange", to: at(own, giving.port), text: "give" });
    expect(got, await app.show()).toEqual({ bytes, sha256, how: "end" });
    const taking = await app.ask({ do: "serve", what: "echo" });
    const back = await kernel.ask({ do: "exchange", to: at(own, taking.port), file, half: true });
    expect(back, await app.show()).toEqual({ bytes, sha256, how: "end" });
  });

  test("files arrive as they are, both ways, the app as the client", { timeout: longMs }, async () => {
    const { app, kernel, big } = ground();
    const { file, bytes, sha256 } = big;
    const giving = await kernel.ask({ do: "serve", what: "file", file });
    const got = await app.ask({ do: "exchange", to: at(far, giving.port), text: "give" });
    expect(got, await app.show()).toEqual({ bytes, sha256, how: "end" });
    const echoing = await kernel.ask({ do: "serve", what: "echo" });
    const back = await app.ask({ do: "exchange", to: at(far, echoing.port), file, half: true });
    expect(back, await app.show()).toEqual({ bytes, sha256, how: "end" });
  });
}

function programCases(own: string, far: string, curl: string, ground: () => TcpGround): void {
  test("curl gets a file from the app, and nginx's through a proxy that is one", {
    timeout: longMs,
  }, async () => {
    const { app, far: room, folder, big } = ground();
    const nginx = await startNginx(room, folder);
    const http = await app.ask({ do: "serve", what: "http", file: folder });
    const proxy = await app.ask({ do: "serve", what: "forward", to: at(far, 8080) });
    for (const { port } of [http, proxy]) {
      const url = `http://${at(own, port)}/${big.name}`;
      const fetched = await room.run(
        "sh",
        "-c",
        `curl -sS ${curl} --fail --max-time 200 '${url}' | sha256sum`,
      );
      expect(fetched.slice(0, 64), await app.show()).toBe(big.sha256);
    }
    await nginx.stop();
  });

  test("wrk finds no fault with the app, nor with nginx behind it", { timeout: longMs }, async () => {
    const { app, far: room, folder } = ground();
    writeFileSync(join(folder, "page"), "p".repeat(1000));
    const nginx = await startNginx(room, folder);
    const http = await app.ask({ do: "serve", what: "http", file: folder });
    const proxy = await app.ask({ do: "serve", what: "forward", to: at(far, 8080) });
    for (const { port } of [http, proxy]) {
      const said = await room.run("wrk", "-t1", "-c64", "-d2s", `http://${at(own, port)}/page`);
      const requests = Number(/(\d+) requests in/.exec(said)?.[1]);
      expect(requests, `${said}\n${await app.show()}`).toBeGreaterThan(100);
      expect(said).not.toMatch(/Socket errors|Non-2xx/);
    }
    await nginx.stop();
  });

  test.each([
    ["one stream up", []],
    ["one stream down", ["-R"]],
    ["eight streams up", ["-P", "8"]],
    ["eight streams down", ["-P", "8", "-R"]],
  ])("iperf3 through a proxy: %s", { timeout: longMs }, async (_, args) => {
    const { app, far: room } = ground();
    const server = room.start(["iperf3", "-s", "-1", "-B", far], "iperf3 -s");
    await eventually("iperf3 listens", async () => (await room.run("ss", "-Hltn", "sport = :5201")) !== "");
    const { port } = await app.ask({ do: "serve", what: "forward", to: at(far, 5201) });
    const command = ["iperf3", "-c", own, "-p", String(port), "-t", "2", "-J", ...args];
    const report = JSON.parse(await room.run(...(command as unknown as Command))) as {
      error?: string;
      end: { sum_received: { bytes: number } };
    };
    expect(report.error, await app.show()).toBeUndefined();
    expect(report.end.sum_received.bytes, await app.show()).toBeGreaterThan(2 ** 20);
    await server.stop();
  });

  test("socat writes to the app, and reads from it", { timeout: longMs }, async () => {
    const { app, far: room, big, folder } = ground();
    const out = join(folder, "out");
    const version = own.includes(":") ? "6" : "4";
    const echo = await app.ask({ do: "serve", what: "echo" });
    const to = at(own, echo.port);
    await room.run("sh", "-c", `socat -t 100 - TCP${version}:${to} <'${big.file}' >'${out}'`);
    expect((await room.run("sha256sum", out)).slice(0, 64), await app.show()).toBe(big.sha256);
    const listener = `TCP${version}-LISTEN:7070,reuseaddr`;
    const reader = room.start(
      ["sh", "-c", `socat -u ${listener} CREATE:${out}; echo '{"done":true}'`],
      "socat",
    );
    await eventually("socat listens", async () => (await room.run("ss", "-Hltn", "sport = :7070")) !== "");
    await app.ask({ do: "exchange", to: at(far, 7070), file: big.file, half: true });
    await reader.answer<{ done: boolean }>();
    expect((await room.run("sha256sum", out)).slice(0, 64), await app.show()).toBe(big.sha256);
  });
}

async function startNginx(room: Namespace, folder: string): Promise<Child> {
  const config = join(folder, "nginx.conf");
  writeFileSync(
    config,
    `user root; daemon off; worker_processes 1; pid ${folder}/nginx.pid; error_log stderr error;
    events { worker_connections 1024; }
    http { access_log off; keepalive_requests 1000000; client_body_temp_path ${folder}; proxy_temp_path ${folder};
      fastcgi_temp_path ${folder}; uwsgi_temp_path ${folder}; scgi_temp_path ${folder};
      server { listen 8080 backlog=1024; listen [::]:8080 backlog=1024; root ${folder}; } }\n`,
  );
  const nginx = room.start(["nginx", "-p", folder, "-c", config], "nginx");
  await eventually("nginx listens", async () => {
    nginx.check();
    return (await room.run("ss", "-Hltn", "sport = :8080")) !== "";
  });
  return nginx;
}
