import { Socket, type SocketConstructorOpts } from 'node:net';
import type pg from 'pg';
import { LogicalReplicationService } from 'pg-logical-replication';
import { isTailraceError, TailraceError, messageOf } from '../../base/errors.ts';
import type { Lsn } from '../../base/lsn.ts';
import { CONNECT_TIMEOUT_MS } from '../../postgres/connection.ts';
import { sqlStateOf } from '../../postgres/sqlstate.ts';
import { clientUrl, withTlsExplained } from '../../postgres/tls.ts';
import { CopyBothReader } from '../../pgoutput/copy-both.ts';
import { decodeCopyData, latenessOf, type ReplicationHandler } from '../../pgoutput/decoder.ts';
import { adaptiveReadPacing } from './read-pacing.ts';
import { statusUpdate } from './status-update.ts';

export interface ReplicationConnectionOptions {
  readonly connectionString: string;
  readonly slot: string;
  readonly publication: string;
  /** Receives what the stream holds, before `onData` is called. */
  readonly handler: ReplicationHandler;
  /** Called after each read, when everything in it has gone to the handler. */
  readonly onData: () => void;
  /** Called once when the stream ends without having been closed here. */
  readonly onEnd: (error: TailraceError) => void;
}

/** Connecting, and after it whatever the server does before the stream begins. */
const START_TIMEOUT_MS = 2 * CONNECT_TIMEOUT_MS;
const CLOSE_TIMEOUT_MS = 1_000;

/** What of `pg`'s connection is used here, and not in its types. */
interface ReplicationClient {
  readonly connection: { readonly stream: Socket; sendCopyFromChunk(chunk: Buffer): void };
}

/** What of its plugins pg-logical-replication calls here; it does not export their type. */
interface ReplicationPlugin {
  readonly name: string;
  readonly options: object;
  start(client: pg.Client): Promise<unknown>;
  parse(message: Buffer): unknown;
}

/** What of pg-logical-replication is used here. */
interface ReplicationService {
  on(event: 'start', listener: () => void): unknown;
  on(event: 'error', listener: (error: Error) => void): unknown;
  subscribe(plugin: ReplicationPlugin, slot: string): Promise<unknown>;
  destroy(): Promise<unknown>;
}

/**
 * A logical replication stream. `pg-logical-replication` connects, starts and ends it; the bytes that follow are read here,
 * since its own reader makes several objects for every message. Nothing is acknowledged but what {@link sendStatus} says.
 */
export class ReplicationConnection {
  readonly #options: ReplicationConnectionOptions;
  readonly #service: ReplicationService;
  readonly #pacing = adaptiveReadPacing();
  #client: ReplicationClient | undefined;
  #resumeTimer: NodeJS.Timeout | undefined;
  #held = false;
  #ended = false;

  private constructor(options: ReplicationConnectionOptions) {
    this.#options = options;
    this.#service = new LogicalReplicationService(
      {
        connectionString: clientUrl(options.connectionString),
        application_name: 'tailrace relay wal',
        connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
        keepAlive: true,
        // While paused, a socket reads on until its buffer is full: with one of a byte, pausing leaves bytes in the kernel.
        stream: () => new Socket({ readableHighWaterMark: 1 } as SocketConstructorOpts),
      },
      { acknowledge: { auto: false, timeoutSeconds: 0 } },
    );
  }

  /** Starts streaming from the slot's own position. Rejects with `REPLICATION_FAILED`. */
  static async open(options: ReplicationConnectionOptions): Promise<ReplicationConnection> {
    const connection = new ReplicationConnection(options);
    try {
      await connection.#start();
      return connection;
    } catch (error) {
      await connection.close();
      throw error;
    }
  }

  #start(): Promise<void> {
    const service = this.#service;
    return new Promise((resolve, reject) => {
      const fail = (cause: unknown): void => {
        clearTimeout(timer);
        const error = replicationFailed(this.#options.slot, cause);
        reject(error);
        this.#end(error);
      };
      const timer = setTimeout(() => {
        fail(new Error(`the server did not begin to stream within ${START_TIMEOUT_MS} ms`));
      }, START_TIMEOUT_MS);
      service.on('start', () => {
        clearTimeout(timer);
        resolve();
      });
      service.on('error', fail);
      // Starts, reads and ends the stream; the promise settles when it has ended.
      service.subscribe(this.#plugin(), this.#options.slot).then(() => {
        fail(new Error('the server ended the stream'));
      }, fail);
    });
  }

  #plugin(): ReplicationPlugin {
    const { slot, publication } = this.#options;
    return {
      name: 'pgoutput',
      options: {},
      parse: () => undefined, // not called: the bytes do not pass through the library's reader
      start: (client) => {
        this.#takeOver(client as pg.Client & ReplicationClient);
        return client.query(
          `START_REPLICATION SLOT "${slot}" LOGICAL 0/0 (proto_version '1', publication_names '"${publication}"')`,
        );
      },
    };
  }

  /** Reads the socket from here on; `pg` still gets every message that is not CopyData. */
  #takeOver(client: ReplicationClient): void {
    this.#client = client;
    const { stream } = client.connection;
    const inner = stream.listeners('data') as ((bytes: Buffer) => void)[];
    let lateMs = 0;
    let isLatenessOfChunk = false; // that of the first transaction that begins in it will do
    const reader = new CopyBothReader({
      copyData: (buffer, start, end) => {
        const late = isLatenessOfChunk ? undefined : latenessOf(buffer, start, end);
        if (late !== undefined) {
          lateMs = late;
          isLatenessOfChunk = true;
        }
        decodeCopyData(buffer, start, end, this.#options.handler);
      },
      otherMessage: (message) => {
        for (const listener of inner) listener.call(stream, message);
      },
    });
    stream.removeAllListeners('data');
    stream.on('data', (chunk: Buffer) => {
      isLatenessOfChunk = false;
      try {
        reader.push(chunk);
        this.#options.onData();
      } catch (error) {
        this.#end(error instanceof TailraceError ? error : replicationFailed(this.#options.slot, error));
        stream.destroy();
        return;
      }
      const pauseMs = this.#pacing.onRead(chunk.length, performance.now(), lateMs);
      if (pauseMs > 0) this.#pause(pauseMs);
    });
  }

  #pause(forMs: number): void {
    if (this.#resumeTimer !== undefined) return;
    this.#client?.connection.stream.pause();
    this.#resumeTimer = setTimeout(() => {
      this.#resumeTimer = undefined;
      if (!this.#held) this.#readOn();
    }, forMs);
  }

  /** Takes what has gathered in one piece; a stream that just flows again would give it in the pieces it came in. */
  #readOn(): void {
    const stream = this.#client?.connection.stream;
    stream?.read(); // emits 'data', which may pause again
    if (this.#resumeTimer === undefined && !this.#held) stream?.resume();
  }

  /** Stops reading: the server is held back by the full socket. */
  hold(): void {
    if (this.#held) return;
    this.#held = true;
    this.#client?.connection.stream.pause();
  }

  /** Reads on after {@link hold}. */
  unhold(): void {
    if (!this.#held) return;
    this.#held = false;
    if (this.#resumeTimer === undefined) this.#readOn();
  }

  get isHeld(): boolean {
    return this.#held;
  }

  /** Tells the server what was received and what is durable; the second is what the slot lets go of. */
  sendStatus(received: Lsn, durable: Lsn, replyRequested: boolean): void {
    if (this.#ended) return;
    this.#client?.connection.sendCopyFromChunk(statusUpdate(received, durable, replyRequested, Date.now()));
  }

  #end(error: TailraceError): void {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#resumeTimer);
    this.#options.onEnd(error);
  }

  /** Does not wait for a network that is gone. */
  async close(): Promise<void> {
    this.#ended = true;
    clearTimeout(this.#resumeTimer);
    const timer = setTimeout(() => {
      this.#client?.connection.stream.destroy();
    }, CLOSE_TIMEOUT_MS);
    await this.#service.destroy().catch(() => undefined);
    clearTimeout(timer);
  }
}

/** The role may not replicate, or `pg_hba.conf` does not let it in. */
const FORBIDDEN: ReadonlySet<string | undefined> = new Set(['28000', '28P01', '42501']);

function replicationFailed(slot: string, thrown: unknown): TailraceError {
  const cause = withTlsExplained(thrown);
  if (isTailraceError(cause, 'TLS_REFUSED')) return cause;
  const retryable = !FORBIDDEN.has(sqlStateOf(cause));
  const next = retryable ? 'It is opened again from the last durable position.' : 'Grant the role what it needs.';
  return new TailraceError(
    'REPLICATION_FAILED',
    `The replication stream of slot ${slot} ended: ${messageOf(cause)}. ${next}`,
    { cause, retryable },
  );
}
