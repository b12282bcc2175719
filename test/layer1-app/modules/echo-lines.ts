/** A handler module of group.test.ts: it sends back what it gets. */
import type { AppVerbs, Message, Sockfd } from "../../../src/index.ts";

export function request(sockfd: Sockfd, message: Message, apo: AppVerbs): Promise<void> | undefined {
  return apo.sendto(sockfd, message.bytes);
}
