/** A handler module of placement.test.ts: it tells its thread, passes words on to others, and dies if told. */
import { threadId } from "node:worker_threads";
import type { AppVerbs, Message, Sockfd } from "../../../src/index.ts";

export async function request(sockfd: Sockfd, message: Message, apo: AppVerbs): Promise<void> {
  const [verb = "", rest = ""] = message.text().split(" ", 2);
  if (verb === "who") await apo.sendto(sockfd, `${threadId} ${sockfd}`);
  else if (verb === "pass") await pass(Number(rest), apo);
  else if (verb === "many") await apo.sendto(rest.split(",").map(Number), "for all\n");
  else if (verb === "die") process.exit(3);
  else if (verb === "later") {
    await new Promise((resolve) => setTimeout(resolve, 5));
    await apo.sendto(sockfd, "later");
  }
}

/** To a connection of whatever worker; and when it is out there, a word more. */
async function pass(to: Sockfd, apo: AppVerbs): Promise<void> {
  await apo.sendto(to, "passed");
  await apo.flushed(to);
  await apo.sendto(to, "flushed");
}
