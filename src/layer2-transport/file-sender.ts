/**
 * Sends a part of a file through a connection in constant memory.
 *
 * Layer 2. A few 64 KiB frames are filled by one read and handed to the transport; the next read starts when half of
 * them are out. The connection's queue stands still behind a file, so the order of `sendto` is kept.
 */

import { close, fstat, open, readv } from "node:fs";
import type { ErrorCode } from "../layer1-app/errors.ts";
import type { Connection } from "./connection.ts";
import type { Container, Containers } from "./container.ts";
import { type FramePool, type LinkEnd, largeFrameBytes } from "./link.ts";

/** Frames filled by one read. Two such batches are on the way at once: 512 KiB a connection that sends a file. */
const framesPerRead = 4;
const batchesOnTheWay = 2;
/** How long a lack of frames is waited out before it is tried again. */
const retryMs = 2;

export interface FileRequest {
  readonly path: string;
  readonly offset: number;
  /** -1: to the end of the file. */
  readonly length: number;
  readonly token: number;
  /** Who is told. */
  readonly link: LinkEnd;
}

/** What a file sender asks of the dispatcher. */
export interface FileHost {
  readonly pool: FramePool;
  readonly containers: Containers;
  sendPart(connection: Connection, container: Container): void;
  /** The file is through, or failed; `started` says whether bytes of it are out already. */
  fileDone(connection: Connection, sender: FileSender, error: ErrorCode | undefined, started: boolean): void;
}

export class FileSender {
  readonly request: FileRequest;
  private readonly host: FileHost;
  private readonly connection: Connection;
  private fd = -1;
  private position: number;
  private left: number;
  private parts = 0;
  private reading = false;
  private started = false;
  private finished = false;

  constructor(host: FileHost, connection: Connection, request: FileRequest) {
    this.host = host;
    this.connection = connection;
    this.request = request;
    this.position = request.offset;
    this.left = request.length;
  }

  start(): void {
    this.reading = true;
    open(this.request.path, "r", (error, fd) => {
      if (error) {
        this.reading = false;
        return this.finish(fileError(error));
      }
      this.fd = fd;
      fstat(fd, (statError, stat) => {
        this.reading = false;
        if (this.finished) return this.closeFile();
        if (statError) return this.finish(fileError(statError));
        const rest = Math.max(0, stat.size - this.position);
        if (!stat.isFile() || this.left > rest) return this.finish("EINVAL");
        if (this.left < 0) this.left = rest;
        this.read();
      });
    });
  }

  /** A part has been taken by the transport. */
  partSent(): void {
    this.parts -= 1;
    this.read();
  }

  /** The connection has ended. */
  abort(): void {
    this.finish("ECONNRESET");
  }

  private read(): void {
    if (this.reading || this.finished) return;
    if (this.left === 0) {
      if (this.parts === 0) this.finish(undefined);
      return;
    }
    if (this.parts > framesPerRead * (batchesOnTheWay - 1)) return;
    const frames = this.takeFrames();
    this.reading = true;
    if (frames.length === 0) {
      setTimeout(() => {
        this.reading = false;
        if (this.finished) this.closeFile();
        else this.read();
      }, retryMs);
      return;
    }
    const { pool } = this.host;
    const views = frames.map((frame, i) =>
      pool.view(frame, 0, Math.min(largeFrameBytes, this.left - i * largeFrameBytes)),
    );
    readv(this.fd, views, this.position, (error, count) => this.readDone(frames, error, count));
  }

  private takeFrames(): number[] {
    const { pool } = this.host;
    const frames: number[] = [];
    while (frames.length < framesPerRead && frames.length * largeFrameBytes < this.left) {
      const frame = pool.allocateFrame(true);
      if (frame === 0) break;
      pool.hold(frame, pool.partition);
      frames.push(frame);
    }
    return frames;
  }

  private readDone(frames: number[], error: NodeJS.ErrnoException | null, count: number): void {
    const { pool } = this.host;
    this.reading = false;
    const bytes = error || this.finished ? 0 : count;
    this.position += bytes;
    this.left -= bytes;
    const containers: Container[] = [];
    for (const [i, frame] of frames.entries()) {
      const length = Math.min(largeFrameBytes, bytes - i * largeFrameBytes);
      if (length > 0) containers.push(this.host.containers.take(frame, 0, length, true));
      else pool.drop(frame, pool.partition);
    }
    if (bytes === 0) {
      if (this.finished) this.closeFile();
      // No bytes though some were expected: the file was cut while it was being sent.
      else this.finish(error ? fileError(error) : "EIO");
      return;
    }
    this.started = true;
    this.parts += containers.length;
    for (const container of containers) this.host.sendPart(this.connection, container);
    this.read();
  }

  private finish(error: ErrorCode | undefined): void {
    if (this.finished) return;
    this.finished = true;
    if (!this.reading) this.closeFile();
    this.host.fileDone(this.connection, this, error, this.started);
  }

  private closeFile(): void {
    if (this.fd < 0) return;
    close(this.fd, () => {});
    this.fd = -1;
  }
}

function fileError(error: NodeJS.ErrnoException): ErrorCode {
  if (error.code === "ENOENT" || error.code === "ENOTDIR") return "ENOENT";
  if (error.code === "EACCES" || error.code === "EPERM") return "EACCES";
  if (error.code === "EMFILE" || error.code === "ENFILE") return "ENFILE";
  if (error.code === "EISDIR") return "EINVAL";
  return "EIO";
}
