/** What createRuntime refuses, word for word, and its defaults: its own options, and where a link's may stand. */
import { describe, expect, test } from "vitest";
import { checkRuntimeOptions } from "../../src/layer1-app/runtime-options.ts";
import type { RuntimeOptions } from "../../src/layer1-app/types.ts";
import { linkKinds, linkOptionNames, linksOfOption } from "../../src/layer3-ip/links/link-options.ts";

const check = (options: unknown) => checkRuntimeOptions(options as RuntimeOptions);

describe("createRuntime refuses", () => {
  test.each([
    [undefined, "createRuntime takes an object of options, not undefined"],
    [{ worker: 2 }, 'createRuntime: unknown option "worker": did you mean workers?'],
    [
      { link: "tap" },
      'createRuntime: link must be one of "host", "mem", "fd", "tun", "packet", "xdp", not "tap"',
    ],
    [{ workers: 17 }, "createRuntime: workers must be a whole number from 1 to 16, not 17"],
    [{ poolBytes: 5 }, "createRuntime: poolBytes must be a whole number from 1048576 to 2147483648, not 5"],
    [{ device: "apo0" }, 'createRuntime: device is for link "tun", and this is link "host"'],
    [
      { link: "tun", interface: "eth0" },
      'createRuntime: interface is for links "packet", "xdp", and this is link "tun"',
    ],
    [
      { link: "xdp", address: "192.0.2.1/24" },
      'createRuntime: address is for links "mem", "fd", "tun", "packet", and this is link "xdp": "xdp" shares the ' +
        "addresses of its interface",
    ],
  ])("%j", (options, message) => {
    expect(() => check(options)).toThrow(expect.objectContaining({ code: "EINVAL", message }));
  });
});

test("an option of another link is refused on each link, and never on its own", () => {
  for (const link of linkKinds) {
    for (const name of linkOptionNames) {
      let said = "";
      try {
        check({ link, [name]: "something" });
      } catch (error) {
        said = (error as Error).message;
      }
      // The host link's words for the guard are its own: what to use instead.
      const refusal =
        link === "host" && name === "guard" ? "guard: link" : `createRuntime: ${name} is for link`;
      expect(said.startsWith(refusal)).toBe(!linksOfOption[name].includes(link));
    }
  }
});

test("an option that is undefined is as if it were not there", () => {
  const settings = check({ link: undefined, device: undefined, workers: undefined });
  expect(settings.link).toBeUndefined();
  expect(settings.workers).toBeGreaterThanOrEqual(1);
  expect(settings.poolBytes).toBe(64 * 2 ** 20);
});
