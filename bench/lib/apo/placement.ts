/**
 * Where the handlers of a bench's app run: beside their connections in the layer-2 worker, or in the app's own thread.
 */
import type { Handlers } from "../../../src/layer1-app/types.ts";

export type Placement = "worker" | "app";

/** What `opens` is given for a module of handlers at a place. `module`: its URL. */
export async function handlersAt(placement: Placement, module: URL): Promise<object> {
  if (placement === "worker") return { module, placement: "worker" };
  const { connected, request, closed } = (await import(module.href)) as Handlers;
  return { connected, request, closed };
}
