/** The options of TCP connections: what is refused, what they become, and what the host link does with them. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { framing } from "../../src/layer1-app/framing.ts";
import { checkOpenOptions } from "../../src/layer1-app/options.ts";
import { checkRuntimeOptions } from "../../src/layer1-app/runtime-options.ts";
import { checkTcpSettings, checkTuning, tcpSettingNames } from "../../src/layer1-app/tcp-options.ts";
import type { TcpSettings } from "../../src/layer1-app/types.ts";
import {
  defaultTcpOptions,
  type TcpOptions,
  tcpOptionNames,
  tcpOptionWord,
  withTcpOption,
} from "../../src/layer2-transport/tcp/options.ts";
import { dial, expectCode, recorder, startRuntime, until } from "./support.ts";

const local = { protocol: "tcp", port: 0, address: "127.0.0.1" } as const;
const raw = { link: "tun", address: "10.0.0.1/24" } as const;
const check = (given: unknown) => checkTcpSettings("opens", given as TcpSettings, defaultTcpOptions, false);

describe("an option is refused", () => {
  test.each([
    [{ cork: "yes" }, 'opens: cork must be true or false, not "yes"'],
    [{ maxseg: 40 }, "opens: maxseg must be 0 (what the MTU allows) or at least 88, not 40"],
    [{ recvBuffer: 1 }, "opens: recvBuffer must be a whole number from 4096 to 1073741824, not 1"],
    [{ ttl: 0 }, "opens: ttl must be a whole number from 1 to 255, not 0"],
    [{ flowLabel: 1 << 20 }, "opens: flowLabel must be a whole number from 0 to 1048575, not 1048576"],
    [{ congestion: "reno" }, 'opens: congestion must be "cubic" or "newreno" or "bbr", not "reno"'],
    [{ keepalive: 5 }, "opens: keepalive must be true, false or { idleMs, intervalMs, probes }, not 5"],
    [{ keepalive: { idle: 5 } }, 'opens: keepalive: unknown option "idle": did you mean idleMs?'],
    [{ keepalive: { probes: 16 } }, "opens: keepalive.probes must be a whole number from 1 to 15, not 16"],
  ])("%j", (given, text) => {
    expect(() => check(given)).toThrow(text);
  });

  test("by opens: of another protocol, mistyped, or two names that disagree", () => {
    const ground = { tcp: defaultTcpOptions, sendlen: 4096, isHost: false };
    const opens = (options: object) => checkOpenOptions({ ...local, ...options } as never, ground);
    expect(() => opens({ protocol: "udp", cork: true })).toThrow("opens: cork is for tcp, this is udp");
    expect(() => opens({ nodelai: true })).toThrow("did you mean nodelay?");
    expect(() => opens({ sendlen: 5, sendBuffer: 6 })).toThrow("sendBuffer is another name of sendlen");
    expect(opens({ sendBuffer: 77 }).rules.sendlen).toBe(77);
    expect(opens({}).rules.sendlen).toBe(4096);
  });

  test("by createRuntime", () => {
    expect(() => checkRuntimeOptions({ ...raw, tcp: { dscp: 64 } })).toThrow("createRuntime: tcp: dscp");
    expect(() => checkRuntimeOptions({ ...raw, tcp: { dsc: 1 } as never })).toThrow("did you mean dscp?");
  });

  test("by tune, when it matters only while a connection is made", () => {
    expect(() => checkTuning({ initialWindow: 4 }, false)).toThrow("tune: initialWindow matters only while");
  });

  test.each([{ cork: true }, { ttl: 5 }, { keepalive: { probes: 3 } }])("on the host link: %j", (given) => {
    expect(() => checkTcpSettings("opens", given, defaultTcpOptions, true)).toThrow(/link "host" cannot set/);
    expect(() => checkTuning(given, true)).toThrow(/link "host" cannot set/);
    expect(() => checkRuntimeOptions({ link: "host", tcp: given })).toThrow(/link "host" cannot set/);
  });
});

describe("options add up", () => {
  test("what opens says goes over what the runtime has, that over the defaults", () => {
    const { tcp, sendlen } = checkRuntimeOptions({ ...raw, tcp: { ttl: 9, dscp: 8, sendBuffer: 5000 } });
    const { rules } = checkOpenOptions({ ...local, dscp: 10 }, { tcp, sendlen, isHost: false });
    expect(rules.tcp).toEqual({ ...defaultTcpOptions, ttl: 9, dscp: 10 });
    expect(rules.sendlen).toBe(5000);
  });

  test("keepalive as a switch, and with its times", () => {
    expect(check({ keepalive: true })).toEqual({ ...defaultTcpOptions, keepalive: true });
    expect(check({ keepalive: { idleMs: 5, probes: 2 } })).toEqual({
      ...defaultTcpOptions,
      keepalive: true,
      keepaliveIdleMs: 5,
      keepaliveProbes: 2,
    });
  });

  test("every option has a name for apps, and every default passes its own check", () => {
    const { keepaliveIdleMs, keepaliveIntervalMs, keepaliveProbes, label, ...same } = defaultTcpOptions;
    const keepalive = {
      idleMs: keepaliveIdleMs,
      intervalMs: keepaliveIntervalMs,
      probes: keepaliveProbes,
    };
    const all = { ...same, flowLabel: label, keepalive };
    expect(Object.keys(all).sort()).toEqual([...tcpSettingNames].sort());
    expect(check(all)).toEqual({ ...defaultTcpOptions, keepalive: true });
  });

  const settings = fc.record(
    {
      nodelay: fc.boolean(),
      cork: fc.boolean(),
      userTimeoutMs: fc.nat(2 ** 31 - 1),
      lingerMs: fc.integer({ min: -1, max: 2 ** 31 - 1 }),
      congestion: fc.constantFrom("cubic", "newreno", "bbr"),
      flowLabel: fc.nat(0xf_ffff),
      keepalive: fc.oneof(fc.boolean(), fc.record({ idleMs: fc.integer({ min: 1, max: 9999 }) })),
    },
    { requiredKeys: [] },
  );

  test("what tune sends word by word is what opens would have made of it", () => {
    fc.assert(
      fc.property(settings, (given) => {
        let options: TcpOptions = defaultTcpOptions;
        for (const [place, word] of checkTuning(given as TcpSettings, false)) {
          expect(word).toBe(word | 0);
          options = withTcpOption(options, place, word);
        }
        expect(options).toEqual(check(given));
      }),
    );
  });

  test("a word that no option has changes nothing", () => {
    expect(withTcpOption(defaultTcpOptions, tcpOptionNames.length, 1)).toBe(defaultTcpOptions);
    expect(withTcpOption(defaultTcpOptions, tcpOptionNames.indexOf("congestion"), 9)).toBe(defaultTcpOptions);
    expect(tcpOptionWord("bbr")).toBe(2);
  });
});

describe("on the host link", () => {
  test("an end of our side is read, the peer goes on, and more is refused", async () => {
    const apo = await startRuntime();
    const { ends, handlers } = recorder();
    const got: string[] = [];
    const listener = await apo.opens({
      ...local,
      framing: framing.line(),
      ...handlers,
      async request(sockfd, message) {
        got.push(message.text());
        if (got.length > 1) return;
        void apo.sendto(sockfd, "last");
        await apo.close(sockfd, { shutdown: "write" });
        await apo.close(sockfd, { shutdown: "write" });
        await expectCode("EPIPE", () => apo.sendto(sockfd, "more"));
        await expectCode("EPIPE", () => apo.sendto(sockfd, { file: "/dev/null" }));
      },
    });
    const client = await dial(listener.port);
    client.write("one\n");
    expect((await client.readToEnd()).toString()).toBe("last\n");
    client.write("two\n");
    await until("it is handled still", () => got.length === 2);
    expect(ends).toEqual([]);
    client.socket.end();
    await until("closed is told", () => ends.length === 1);
    expect(ends[0]?.reason).toEqual({ code: "end" });
  });

  test("both sides have ended, and a slow handler still gets all that came before", async () => {
    const apo = await startRuntime();
    const { ends, handlers } = recorder();
    const sent = 1_000_000;
    let got = 0;
    const listener = await apo.opens({
      ...local,
      ...handlers,
      async request(sockfd, message) {
        if (got === 0) await apo.close(sockfd, { shutdown: "write" });
        await new Promise((resolve) => setTimeout(resolve, 5));
        got += message.bytes.length;
      },
    });
    const client = await dial(listener.port);
    client.write(Buffer.alloc(sent, "x"));
    client.socket.end();
    await client.readToEnd();
    await until("closed is told", () => ends.length === 1);
    expect(got).toBe(sent);
    expect(ends[0]?.reason).toEqual({ code: "end" });
  });

  test("an end of reading: what comes is dropped and counted, what is sent goes out", async () => {
    const apo = await startRuntime();
    const { ends, handlers } = recorder();
    const got: string[] = [];
    const listener = await apo.opens({
      ...local,
      framing: framing.line(),
      ...handlers,
      request(sockfd, message, verbs) {
        got.push(message.text());
        verbs.close(sockfd, { shutdown: "read" });
        verbs.sendto(sockfd, "heard");
      },
    });
    const client = await dial(listener.port);
    client.write("one\ntwo\n");
    await client.read(6);
    const more = Buffer.alloc(300_000, "x");
    client.write(more);
    await until("all of it is dropped", () => {
      return (apo.counters()["layer2.drop.read-shutdown"] as number) >= more.length;
    });
    client.socket.end();
    await until("closed is told", () => ends.length === 1);
    expect(got).toEqual(["one"]);
    expect(ends[0]?.reason).toEqual({ code: "end" });
  });

  test("nodelay, keepalive and sendBuffer of one connection can be changed, in order with what is sent", async () => {
    const apo = await startRuntime();
    const { connected, handlers } = recorder();
    const listener = await apo.opens({ ...local, ...handlers });
    const client = await dial(listener.port);
    await until("it stands", () => connected.length === 1);
    const sockfd = connected[0] as number;
    apo.tune(sockfd, { nodelay: false, keepalive: { idleMs: 1000 }, sendBuffer: 100 });
    void apo.sendto(sockfd, "through");
    await apo.flushed(sockfd);
    expect((await client.read(7)).toString()).toBe("through");
    await expectCode("ENOBUFS", () => apo.sendto(sockfd, Buffer.alloc(101)));
    await expectCode("ENOTSUP", () => apo.tune(sockfd, { cork: true }));
    await expectCode("ENOTSUP", () => apo.info(sockfd));
    await apo.close(sockfd);
    await expectCode("ESTALE", () => apo.tune(sockfd, { nodelay: true }));
    await expectCode("ESTALE", () => apo.info(sockfd));
  });
});
