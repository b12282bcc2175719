/**
 * Which TCP ports this worker uses, counted, so that layer 3 lets their packets through while anybody does.
 *
 * Layer 2, TCP. Users are listeners and client connections; a port that a listener has is not given to clients.
 */

const ports = 65_536;

export class PortsInUse {
  private readonly users = new Int32Array(ports);
  private readonly listening = new Uint8Array(ports);
  private readonly open: (port: number) => void;
  private readonly close: (port: number) => void;

  /** `open` throws when the port is not to be had. */
  constructor(open: (port: number) => void, close: (port: number) => void) {
    this.open = open;
    this.close = close;
  }

  use(port: number): void {
    if (this.users[port] === 0) this.open(port);
    this.users[port] = (this.users[port] as number) + 1;
  }

  leave(port: number): void {
    const left = (this.users[port] as number) - 1;
    this.users[port] = left;
    if (left === 0) this.close(port);
  }

  listen(port: number): void {
    this.use(port);
    this.listening[port] = (this.listening[port] as number) + 1;
  }

  unlisten(port: number): void {
    this.listening[port] = (this.listening[port] as number) - 1;
    this.leave(port);
  }

  isListening(port: number): boolean {
    return this.listening[port] !== 0;
  }

  isUsed(port: number): boolean {
    return this.users[port] !== 0;
  }
}
