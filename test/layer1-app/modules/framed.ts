/** A handler module of modules.test.ts with a framing of its own: messages of two bytes. */
import type { AppVerbs, Message, Sockfd } from "../../../src/index.ts";

export const framing = (bytes: Uint8Array): number => (bytes.length >= 2 ? 2 : 0);

export default {
  request: (sockfd: Sockfd, message: Message, apo: AppVerbs) => apo.sendto(sockfd, `[${message.text()}]`),
};
