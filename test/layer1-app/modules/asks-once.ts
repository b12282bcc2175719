/** A handler module of group.test.ts: it asks when a connection stands, and closes it when the answer is right. */
import type { AppVerbs, Message, Peer, Sockfd } from "../../../src/index.ts";

export function connected(sockfd: Sockfd, _peer: Peer, apo: AppVerbs): Promise<void> | undefined {
  return apo.sendto(sockfd, `question ${sockfd}`);
}

export function request(sockfd: Sockfd, message: Message, apo: AppVerbs): void {
  if (message.text() === `question ${sockfd}`) apo.close(sockfd);
}
