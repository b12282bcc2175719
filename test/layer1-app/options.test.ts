/** What opens refuses, word for word. */
import { describe, expect, test } from "vitest";
import { framing } from "../../src/layer1-app/framing.ts";
import { checkOpenOptions } from "../../src/layer1-app/options.ts";
import { hostTcpOptions } from "../../src/layer1-app/tcp-options.ts";
import type { ConnectOptions, ListenOptions } from "../../src/layer1-app/types.ts";
import { defaultUdpOptions } from "../../src/layer2-transport/index.ts";

const opens = (options: unknown) => checkOpenOptions(options as ListenOptions | ConnectOptions);
const tcp = { protocol: "tcp", port: 7 };

describe("opens refuses", () => {
  test.each([
    [undefined, "opens takes an object of options, not undefined"],
    [{ ...tcp, recvLen: 1 }, 'opens: unknown option "recvLen": did you mean recvlen?'],
    [{ ...tcp, conected() {} }, 'opens: unknown option "conected": did you mean connected?'],
    [{ ...tcp, protocol: "sctp" }, 'opens: protocol must be "tcp", "udp" or "icmp", not "sctp"'],
    [{ protocol: "tcp" }, "opens: give either port (a server) or to (a client)"],
    [{ ...tcp, to: "a:1" }, "opens: give either port (a server) or to (a client)"],
    [{ ...tcp, news: "x" }, "opens: news is for a client, this is the other"],
    [{ protocol: "tcp", to: "a:1", backlog: 4 }, "opens: backlog is for a server, this is the other"],
    [{ ...tcp, port: 65_536 }, "opens: port must be a whole number from 0 to 65535, not 65536"],
    [{ ...tcp, port: "7" }, 'opens: port must be a whole number from 0 to 65535, not "7"'],
    [{ ...tcp, backlog: 0 }, "opens: backlog must be a whole number from 1 to 65536, not 0"],
    [{ ...tcp, recvlen: 1.5 }, "opens: recvlen must be a whole number from 1 to 1073741824, not 1.5"],
    [{ ...tcp, request: 3 }, "opens: request must be a function, not 3"],
    [{ ...tcp, framing: framing.line }, "opens: framing: write framing.line(), it is a function to call"],
    [
      { ...tcp, framing: "line" },
      'opens: framing must be one of the functions of `framing` called, or a function of your own, not "line"',
    ],
    [
      { ...tcp, module: "x.js", request() {} },
      "opens: give either request or module, not both (the module exports its handlers)",
    ],
    [{ ...tcp, nodelay: 1 }, "opens: nodelay must be true or false, not 1"],
    [{ ...tcp, address: "" }, 'opens: address must be an IP address or a host name, not ""'],
    [
      { protocol: "tcp", to: "host" },
      'opens: to must be "host:port", "[v6]:port" or { address, port }, not "host"',
    ],
    [
      { protocol: "tcp", to: "::1:80" },
      'opens: to must be "host:port", "[v6]:port" or { address, port }, not "::1:80"',
    ],
    [
      { protocol: "tcp", to: "a:99999" },
      'opens: to must be "host:port", "[v6]:port" or { address, port }, not "a:99999"',
    ],
    [{ protocol: "tcp", to: "a:1", news: 5 }, "opens: news must be bytes or a string, not 5"],
  ])("%j", (options, message) => {
    expect(() => opens(options)).toThrow(expect.objectContaining({ code: "EINVAL", message }));
  });
});

describe("opens understands", () => {
  test.each([
    ["example.org:80", "example.org", 80],
    ["[2001:db8::1]:554", "2001:db8::1", 554],
    [{ address: "::1", port: 1 }, "::1", 1],
  ])("to: %j", (to, address, port) => {
    expect(opens({ protocol: "tcp", to }).client).toMatchObject({ address, port, connectMs: 10_000 });
  });

  test("icmp without a port", () => {
    expect(opens({ protocol: "icmp", to: "192.0.2.1" }).client).toMatchObject({
      address: "192.0.2.1",
      port: 0,
    });
  });

  test("its defaults", () => {
    const { rules, server } = opens({ ...tcp });
    expect(server).toEqual({ address: undefined, port: 7, limit: 4096 });
    expect(rules).toEqual({
      protocol: "tcp",
      framing: "raw",
      recvlen: 65_536,
      sendlen: 16 * 2 ** 20,
      idleMs: 60_000,
      waiting: 64,
      tcp: hostTcpOptions,
      udp: defaultUdpOptions,
    });
  });
});
