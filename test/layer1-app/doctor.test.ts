/** The diagnosis of `apo doctor`: facts of machines that are not this one, and what it says of them. */
import { describe, expect, test } from "vitest";
import { diagnose, grantAll, type LinkDiagnosis } from "../../src/layer1-app/doctor/diagnosis.ts";
import {
  type Capability,
  capabilitiesOf,
  capabilityBits,
  memlockOf,
  readSystemFacts,
  type SystemFacts,
} from "../../src/layer1-app/doctor/facts.ts";

const all = Object.keys(capabilityBits) as Capability[];
const works = {
  tunOpen: 0,
  tunFeatures: 0,
  packetSocket: 0,
  xdpSocket: 0,
  bpfMap: 0,
  xdpProgram: 0,
  tunFlags: 0x4100,
};
const refused = { ...works, packetSocket: 1, xdpSocket: 1, bpfMap: 1, xdpProgram: 1 };

const root: SystemFacts = {
  node: "v24.0.0",
  nodePath: "/usr/bin/node",
  kernel: "6.18.1-amd64",
  user: "root (uid 0)",
  capabilities: all,
  obtainable: all,
  noNewPrivileges: false,
  memlockBytes: 8 * 2 ** 20,
  probe: works,
  addonError: undefined,
};
const user: SystemFacts = { ...root, user: "me (uid 1000)", capabilities: [], probe: refused };

function byName(facts: SystemFacts): Record<string, LinkDiagnosis> {
  return Object.fromEntries(diagnose(facts).map((one) => [one.link, one]));
}

function running(facts: SystemFacts): string[] {
  return diagnose(facts)
    .filter(({ runs }) => runs)
    .map(({ link }) => link);
}

const fixesOf = (one: LinkDiagnosis | undefined) =>
  (one?.needs ?? []).filter(({ met }) => !met).map(({ fix }) => fix);

test("root runs every link, and needs nothing granted", () => {
  expect(running(root)).toEqual(["host", "mem", "fd", "tun", "packet", "xdp"]);
  expect(grantAll(root)).toBeUndefined();
});

describe("an ordinary user", () => {
  test("runs what takes no capability, and hears how to get each", () => {
    expect(running(user)).toEqual(["host", "mem", "fd"]);
    const { tun, packet, xdp } = byName(user);
    expect(fixesOf(tun)).toEqual(["sudo setcap cap_net_admin+ep /usr/bin/node"]);
    expect(fixesOf(packet)).toEqual(["sudo setcap cap_net_raw+ep /usr/bin/node"]);
    const granted = "sudo setcap cap_net_admin,cap_net_raw,cap_bpf,cap_ipc_lock+ep /usr/bin/node";
    expect([...new Set(fixesOf(xdp))]).toEqual([granted, expect.stringContaining("LimitMEMLOCK=infinity")]);
    expect(grantAll(user)).toBe(granted);
  });

  test("keeps what Node has been granted already", () => {
    const raw: SystemFacts = {
      ...user,
      capabilities: ["cap_net_raw"],
      probe: { ...refused, packetSocket: 0 },
    };
    expect(running(raw)).toContain("packet");
    expect(fixesOf(byName(raw).tun)).toEqual(["sudo setcap cap_net_raw,cap_net_admin+ep /usr/bin/node"]);
  });

  test("whose Node has a name that a shell would split", () => {
    const odd = { ...user, nodePath: "/opt/my node's/node" };
    expect(fixesOf(byName(odd).packet)).toEqual(["sudo setcap cap_net_raw+ep '/opt/my node'\\''s/node'"]);
  });

  test("in a container without the capability, or with no_new_privs, is not told to use setcap", () => {
    const contained = byName({ ...user, obtainable: [] });
    expect(fixesOf(contained.tun)).toEqual([
      "start the container with --cap-add=NET_ADMIN (systemd: CapabilityBoundingSet)",
    ]);
    const unprivileged = { ...user, noNewPrivileges: true };
    expect(fixesOf(byName(unprivileged).tun)[0]).toContain("start it as root: no_new_privs is set");
    expect(grantAll(unprivileged)).toBeUndefined();
  });
});

describe("a machine without", () => {
  test("/dev/net/tun", () => {
    const { tun } = byName({ ...root, probe: { ...works, tunOpen: 2, tunFeatures: 2 } });
    expect(tun?.runs).toBe(false);
    expect(fixesOf(tun)).toEqual(["sudo modprobe tun (in a container: --device /dev/net/tun)"]);
  });

  test("AF_XDP in its kernel", () => {
    const { xdp } = byName({ ...root, probe: { ...works, xdpSocket: 97 } });
    expect(xdp?.needs[1]).toMatchObject({ met: false, found: "this kernel does not have the family" });
  });

  test("the addon runs the host link alone, and hears of nothing but the addon", () => {
    const none = { ...root, probe: undefined, addonError: "it is not built: run something" };
    expect(running(none)).toEqual(["host"]);
    expect(byName(none).xdp?.needs).toEqual([
      {
        what: "the native addon",
        met: false,
        found: "it is not built",
        fix: "npm run build:native (installed: npm rebuild apo-runtime)",
      },
    ]);
  });

  test("a new kernel says what it cannot do", () => {
    const notes = (kernel: string) => byName({ ...root, kernel }).tun?.notes;
    expect(notes("6.1.0-13-amd64")).toContain("no UDP segmentation offload: that takes Linux 6.2");
    expect(notes("6.2.0")).toContain("UDP segmentation offload");
    expect(notes("7.0.0-rc1")).toContain("UDP segmentation offload");
    expect(byName({ ...root, probe: { ...works, tunFlags: 0 } }).tun?.notes).toEqual([
      "no offload: each packet is handed over alone",
      "one queue only",
    ]);
  });
});

test("what the kernel tells of a process is read", () => {
  const status = "CapInh:\t0000000000000000\nCapEff:\t0000008000003000\nCapBnd:\t000001ffffffffff\n";
  expect(capabilitiesOf(status, "CapEff")).toEqual(["cap_net_admin", "cap_net_raw", "cap_bpf"]);
  expect(capabilitiesOf(status, "CapBnd")).toEqual(all);
  expect(capabilitiesOf("", "CapEff")).toEqual([]);
  expect(memlockOf("Max locked memory         65536                8388608              bytes")).toBe(
    8_388_608,
  );
  expect(memlockOf("Max locked memory         unlimited            unlimited            bytes")).toBe(
    Infinity,
  );
  expect(memlockOf("")).toBe(0);
});

test("this machine has a kernel, a Node and an addon, and what was tried agrees with the capabilities", () => {
  const facts = readSystemFacts();
  expect(facts.addonError).toBeUndefined();
  expect(facts.kernel).toMatch(/^\d+\.\d+/);
  expect(facts.nodePath).toBe(process.execPath);
  expect(facts.probe?.packetSocket === 0).toBe(facts.capabilities.includes("cap_net_raw"));
});
