/**
 * One installer or builder at a time in a checkout: a lock file that names its holder.
 *
 * A lock whose holder has died is taken over; waiting is bounded and says whom it waits for.
 * Plain JavaScript for Node >= 18, no dependencies: it runs before anything is installed.
 */
import { linkSync, mkdirSync, readFileSync, renameSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { cacheDir } from "./paths.js";
import { PlainError, say } from "./say.js";

const waitMs = 15 * 60_000;
const pollMs = 200;
const lockFile = join(cacheDir, "lock");

/** Runs `work` while holding the lock of the checkout. */
export async function withLock(work) {
  const me = `${process.pid} ${startTime(process.pid)}`;
  await take(me);
  const release = () => {
    if (read() === me) unlinkSync(lockFile);
  };
  process.once("exit", release);
  try {
    return await work();
  } finally {
    process.off("exit", release);
    release();
  }
}

async function take(me) {
  const own = `${lockFile}.${process.pid}`;
  const deadlineMs = Date.now() + waitMs;
  let told = false;
  createOwn(own, me);
  try {
    while (!linkTo(own)) {
      const holder = read();
      if (holder !== undefined && !isAlive(holder)) {
        removeStale(holder);
        continue;
      }
      const pid = holder?.split(" ")[0];
      if (!told && pid)
        say(`another command (process ${pid}) is installing or building here; waiting for it.`);
      told = told || pid !== undefined;
      if (Date.now() > deadlineMs) {
        throw new PlainError(
          `process ${pid} has been installing or building here for ${waitMs / 60_000} minutes; ` +
            `end it, or remove ${lockFile}, and try again.`,
        );
      }
      await sleep(pollMs);
    }
  } finally {
    unlinkSync(own);
  }
}

function createOwn(own, me) {
  try {
    mkdirSync(cacheDir, { recursive: true });
    writeFileSync(own, me);
  } catch (error) {
    throw new PlainError(
      `something has to be installed or built first, and this user may not write here (${error.code} ` +
        `on ${error.path}): run the same command once as the owner of the folder.`,
    );
  }
}

/** The lock appears with its content in one step, or not at all. */
function linkTo(own) {
  try {
    linkSync(own, lockFile);
    return true;
  } catch (error) {
    if (error.code === "EEXIST") return false;
    throw error;
  }
}

/** Takes a dead holder's lock away; if somebody else was quicker, his new lock is put back. */
function removeStale(holder) {
  const aside = `${lockFile}.stale.${process.pid}`;
  try {
    renameSync(lockFile, aside);
  } catch {
    return;
  }
  if (readFileSync(aside, "utf8") !== holder) linkTo(aside);
  unlinkSync(aside);
}

function read() {
  try {
    return readFileSync(lockFile, "utf8");
  } catch {
    return undefined;
  }
}

function isAlive(holder) {
  const [pid, started] = holder.split(" ");
  return startTime(pid) === started;
}

/** Field 22 of /proc/PID/stat: with it a process number that was used again is not mistaken for the holder. */
function startTime(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
  } catch {
    return "gone";
  }
}
