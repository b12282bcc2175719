/** Options of createRuntime from the environment: how they are read, and that an app's own win. */
import { describe, expect, test } from "vitest";
import {
  environmentOptions,
  namingEnvironment,
  optionsOfEnvironment,
  variableOf,
  withEnvironment,
} from "../../src/layer1-app/environment.ts";
import { checkRuntimeOptions } from "../../src/layer1-app/runtime-options.ts";
import type { RuntimeOptions } from "../../src/layer1-app/types.ts";
import { linkOptionNames } from "../../src/layer3-ip/links/link-options.ts";

const tun = { APO_LINK: "tun", APO_ADDRESS: "10.64.0.1/24", APO_PCAP: "all.pcapng", APO_WORKERS: "3" };

test("every option but the wire and the guard has a variable", () => {
  const own = ["link", "workers", "appWorkers", "poolBytes", "memoryBytes"];
  expect([...environmentOptions].sort()).toEqual(
    [...own, ...linkOptionNames.filter((name) => name !== "wire" && name !== "guard")].sort(),
  );
  expect(variableOf("hostAddress")).toBe("APO_HOST_ADDRESS");
});

test("texts become what the options are", () => {
  expect(
    optionsOfEnvironment({
      ...tun,
      APO_FD: "3",
      APO_VNET_HEADER: "true",
      APO_ZERO_COPY: "auto",
      APO_MTU: "9000",
      APO_ROUTES: "198.51.100.0/24 via 192.0.2.1, 0.0.0.0/0 via 192.0.2.9",
      APO_DEVICE: "",
      APO_NATIVE_BUILD: "Debug",
    }),
  ).toEqual({
    link: "tun",
    address: "10.64.0.1/24",
    pcap: "all.pcapng",
    workers: 3,
    fd: 3,
    vnetHeader: true,
    zeroCopy: "auto",
    mtu: 9000,
    routes: [
      { to: "198.51.100.0/24", via: "192.0.2.1" },
      { to: "0.0.0.0/0", via: "192.0.2.9" },
    ],
  });
  expect(optionsOfEnvironment({ APO_VNET_HEADER: "12", APO_ZERO_COPY: "false" })).toEqual({
    vnetHeader: 12,
    zeroCopy: false,
  });
});

describe("an app's own options win", () => {
  test("one by one, where it names no link", () => {
    expect(withEnvironment({ workers: 1, address: "10.0.0.9/24" }, tun)).toEqual({
      link: "tun",
      address: "10.0.0.9/24",
      pcap: "all.pcapng",
      workers: 1,
    });
    expect(withEnvironment({ address: undefined } as unknown as RuntimeOptions, tun).address).toBe(
      "10.64.0.1/24",
    );
  });

  test("with its link, the environment's options of a link do not hold, but for the capture", () => {
    expect(withEnvironment({ link: "mem", address: "10.0.0.9/24" }, tun)).toEqual({
      link: "mem",
      address: "10.0.0.9/24",
      pcap: "all.pcapng",
      workers: 3,
    });
    expect(withEnvironment({ link: "host" }, tun)).toEqual({ link: "host", workers: 3 });
  });

  test("an empty environment changes nothing", () => {
    expect(withEnvironment({ link: "host", workers: 2 }, {})).toEqual({ link: "host", workers: 2 });
  });
});

test("an error says what the environment had part in", () => {
  const wrong = { ...tun, APO_INTERFACE: "eth0" };
  const check = () => checkRuntimeOptions(withEnvironment({}, wrong));
  expect(() => namingEnvironment(wrong, check)).toThrow(
    expect.objectContaining({
      code: "EINVAL",
      message:
        'createRuntime: interface is for links "packet", "xdp", and this is link "tun" ' +
        "(the environment has APO_ADDRESS, APO_PCAP, APO_INTERFACE, APO_LINK, APO_WORKERS)",
    }),
  );
  expect(() => namingEnvironment({}, () => checkRuntimeOptions({ workers: 99 }))).toThrow(/not 99$/);
});
