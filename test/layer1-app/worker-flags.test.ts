/** Which flags of the process a worker is given: its own way of finding modules, never the main script's business. */
import { describe, expect, it } from "vitest";
import { workerFlags } from "../../src/layer1-app/worker-flags.ts";

describe("workerFlags", () => {
  it("lets a worker inherit, where nothing speaks of a script", () => {
    expect(workerFlags([])).toBeUndefined();
    expect(workerFlags(["--expose-gc", "--no-warnings", "--import", "./x.js"])).toBeUndefined();
  });

  it("keeps what a thread may have of its own, where something does", () => {
    expect(workerFlags(["--input-type=module", "-e", "code"])).toEqual([]);
    expect(
      workerFlags(["--expose-gc", "--import", "./x.js", "--conditions=a", "--eval", "--import"]),
    ).toEqual(["--import", "./x.js", "--conditions=a", "--import"]);
    expect(workerFlags(["-r", "./y.cjs", "--no-warnings", "--print", "1"])).toEqual([
      "-r",
      "./y.cjs",
      "--no-warnings",
    ]);
  });
});
