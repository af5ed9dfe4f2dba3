import { murmur2 } from '../../broker/partitioner.ts';
import { TailraceError } from '../../base/errors.ts';
import type { Lsn } from '../../base/lsn.ts';
import {
  NULL_COLUMN,
  readTuple,
  TupleColumns,
  type Relation,
  type ReplicationHandler,
} from '../../pgoutput/decoder.ts';
import { emptyColumns, type OutboxColumns } from '../batch.ts';
import type { Place } from '../place.ts';

/** Rows that came from the WAL, and how far it was read with them. */
export interface StreamedRows {
  readonly rows: OutboxColumns;
  /** The transaction of each row. */
  readonly xids: readonly number[];
  /** Every commit that ends at or below it is among these rows, or came before them. */
  readonly end: Lsn;
}

interface OutboxColumnNumbers {
  readonly position: number;
  readonly topic: number;
  readonly key: number;
  readonly tx: number;
}

const POSITIVE = 0x7fffffff;
const DIGIT_ZERO = 48;

/**
 * Gathers the outbox rows of a replication stream as columns. A transaction is not held back until its end: by protocol
 * version 1 all that is sent has committed.
 */
export class OutboxStream implements ReplicationHandler {
  readonly #schema: string;
  readonly #onReplyRequested: () => void;
  readonly #tuple = new TupleColumns();
  #outbox: { id: number; columns: OutboxColumnNumbers } | undefined;
  #rows = emptyColumns();
  #xids: number[] = [];
  #received: Lsn;
  /** What the log holds already and the stream may bring again. */
  #logged: Place | undefined;
  #topicBytes = Buffer.alloc(0);
  #topic = '';

  constructor(schema: string, place: Place, onReplyRequested: () => void) {
    this.#schema = schema;
    this.#received = place.end;
    this.#logged = place;
    this.#onReplyRequested = onReplyRequested;
  }

  /** Rows waiting to be taken. */
  get size(): number {
    return this.#xids.length;
  }

  /** Everything that committed at or below this position has been read. */
  get received(): Lsn {
    return this.#received;
  }

  /** Hands over what has come since the last call. */
  take(): StreamedRows {
    const taken = { rows: this.#rows, xids: this.#xids, end: this.#received };
    this.#rows = emptyColumns();
    this.#xids = [];
    return taken;
  }

  /** Says that the stream has passed everything that was in the log when it began. */
  passedLogged(): void {
    this.#logged = undefined;
  }

  begin(): void {
    // Rows carry their transaction; where it starts tells nothing more.
  }

  commit(_commitLsn: Lsn, endLsn: Lsn): void {
    if (endLsn > this.#received) this.#received = endLsn;
  }

  keepalive(walEnd: Lsn, replyRequested: boolean): void {
    if (walEnd > this.#received) this.#received = walEnd;
    if (replyRequested) this.#onReplyRequested();
  }

  relation(relation: Relation): void {
    if (relation.schema !== this.#schema || relation.name !== 'outbox') return;
    this.#outbox = { id: relation.id, columns: outboxColumns(relation) };
  }

  insert(relationId: number, buffer: Buffer, start: number, end: number): void {
    if (this.#outbox?.id !== relationId) return;
    readTuple(buffer, start, end, this.#tuple);
    const { columns } = this.#outbox;
    const position = this.#number(buffer, columns.position);
    const xid = this.#number(buffer, columns.tx);
    if (this.#logged !== undefined && (this.#logged.snapshot.sees(xid) || this.#logged.inLog.has(position))) return;
    this.#rows.ids.push(position);
    this.#rows.topics.push(this.#topicOf(buffer, columns.topic));
    this.#rows.keyHashes.push(this.#keyHash(buffer, columns.key));
    this.#xids.push(xid);
  }

  #number(buffer: Buffer, column: number): number {
    const start = this.#tuple.starts[column] ?? 0;
    const end = start + (this.#tuple.lengths[column] ?? 0);
    let value = 0;
    for (let at = start; at < end; at++) value = value * 10 + (buffer[at] ?? 0) - DIGIT_ZERO;
    return value;
  }

  /** Messages of one topic tend to come together: the text is made once for them. */
  #topicOf(buffer: Buffer, column: number): string {
    const start = this.#tuple.starts[column] ?? 0;
    const end = start + (this.#tuple.lengths[column] ?? 0);
    if (this.#topicBytes.compare(buffer, start, end) !== 0) {
      this.#topicBytes = Buffer.from(buffer.subarray(start, end)); // a copy: a slice would keep the whole chunk alive
      this.#topic = this.#topicBytes.toString('utf8');
    }
    return this.#topic;
  }

  #keyHash(buffer: Buffer, column: number): number {
    const length = this.#tuple.lengths[column] ?? NULL_COLUMN;
    if (length === NULL_COLUMN) return -1;
    const start = this.#tuple.starts[column] ?? 0;
    return murmur2(buffer, start, start + length) & POSITIVE;
  }
}

function outboxColumns(relation: Relation): OutboxColumnNumbers {
  const find = (name: string): number => {
    const at = relation.columns.indexOf(name);
    if (at >= 0) return at;
    throw new TailraceError(
      'PUBLICATION_MISMATCH',
      `The publication sends the outbox without its column ${name} (it sends ${relation.columns.join(', ')}). The outbox is polled until the publication's column list is set back to what the migrations made it.`,
      { retryable: true },
    );
  };
  return { position: find('position'), topic: find('topic'), key: find('key'), tx: find('tx') };
}
