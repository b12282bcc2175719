/** The echo app of the benches: what comes goes back. As a module, or as handlers of the app's own thread. */
import type { AppVerbs, Message, Sockfd } from "../../../src/layer1-app/types.ts";

export function request(sockfd: Sockfd, message: Message, apo: AppVerbs): void {
  void apo.sendto(sockfd, message.bytes);
}
