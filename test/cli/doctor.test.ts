/** `apo doctor` as root or not, as nobody, and without the addon: what it prints and how it ends. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

const program = fileURLToPath(new URL("../../src/cli/apo.ts", import.meta.url));
const nobody = 65_534;

interface Said {
  code: number | null;
  out: string;
  err: string;
}

function doctor(args: string[], options: { uid?: number; build?: string } = {}): Said {
  const { uid, build } = options;
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, "doctor", ...args], {
    encoding: "utf8",
    env: { ...process.env, ...(build && { APO_NATIVE_BUILD: build }) },
    ...(uid !== undefined && { uid, gid: uid }),
  });
  return { code: status, out: stdout, err: stderr };
}

interface Report {
  readonly kernel: string;
  readonly links: { link: string; runs: boolean; needs: { met: boolean; fix?: string }[] }[];
}

/** Why nobody cannot run this: not root, or the checkout is in a folder that others may not enter. */
function whyNotAsNobody(): string | undefined {
  if (process.getuid?.() !== 0) return "not root, which running as another user takes";
  const { status } = spawnSync("test", ["-r", program], { uid: nobody, gid: nobody });
  return status === 0 ? undefined : "nobody may not read the checkout";
}

it("says for each link whether it runs, in words and in JSON, without colours", () => {
  const { code, out, err } = doctor([]);
  expect([code, err]).toEqual([0, ""]);
  expect(out).toMatch(/^host {5}runs {3}the kernel's own TCP and UDP$/m);
  expect(out).not.toContain("\x1b[");
  const report = JSON.parse(doctor(["--json"]).out) as Report;
  expect(report.links.map(({ link }) => link)).toEqual(["host", "mem", "fd", "tun", "packet", "xdp"]);
  for (const { link, runs } of report.links) {
    expect(out).toMatch(new RegExp(`^${link.padEnd(8)} ${runs ? "runs" : "cannot run"}`, "m"));
  }
});

it("ends with 1 when a link that was named does not run: here without the addon", () => {
  expect(doctor(["host"], { build: "none" }).code).toBe(0);
  const { code, out } = doctor(["mem", "host"], { build: "none" });
  expect(code).toBe(1);
  expect(out).toContain(
    "mem      cannot run\n         lacks the native addon: the native addon is not built",
  );
  expect(doctor([], { build: "none" }).code).toBe(0);
});

it("refuses a link that is none", () => {
  expect(doctor(["tum"])).toEqual({
    code: 2,
    out: "",
    err: 'apo doctor: there is no link "tum" (did you mean "tun"?)\nTry: apo doctor --help\n',
  });
});

const why = whyNotAsNobody();
if (why !== undefined) console.warn(`Skipped: apo doctor as nobody: ${why}`);

it.skipIf(why !== undefined)("tells nobody what each link lacks, and the command that grants it", () => {
  const { code, out } = doctor(["--json"], { uid: nobody });
  expect(code).toBe(0);
  const { links } = JSON.parse(out) as Report;
  const fixes = Object.fromEntries(
    links.map(({ link, needs }) => [link, needs.filter(({ met }) => !met).map(({ fix }) => fix)]),
  );
  expect(fixes.host).toEqual([]);
  expect(fixes.mem).toEqual([]);
  expect(fixes.packet).toEqual([`sudo setcap cap_net_raw+ep ${process.execPath}`]);
  expect(fixes.xdp?.[0]).toContain("cap_bpf");
  expect(doctor(["packet"], { uid: nobody }).code).toBe(1);
});
