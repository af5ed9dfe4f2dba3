import type pg from 'pg';
import type { HomeLog, Log } from '../../../src/broker/log.ts';
import type { Source } from '../../../src/relay/index.ts';
import type { Invariant } from '../checker.ts';
import { ackKeepalive } from './ack-keepalive.ts';
import { ackOnReceive } from './ack-on-receive.ts';
import { cursorById } from './cursor-by-id.ts';
import { dropReferencedPartition, rewriteStatements } from './drop-referenced-partition.ts';
import { dedupeByLsn } from './dedupe-by-lsn.ts';
import { noFence } from './no-fence.ts';
import { offsetBySequence } from './offset-by-sequence.ts';
import {
  attemptsInMemory,
  cursorAhead,
  noGroupFence,
  noProcessedRow,
  processedRowInOtherTransaction,
  retryOutOfOrder,
} from './other-statements.ts';
import { pollByXid } from './poll-by-xid.ts';
import { skipMissingRow } from './skip-missing-row.ts';

/** A wrong implementation in place of the right one, which the run must find. */
export interface Sabotage {
  /** What is wrong. */
  readonly wrong: string;
  /** A run that finds one of these broken has caught it. */
  readonly breaks: readonly Invariant[];
  /** Faults without which it would not show. They are injected with and without the sabotage. */
  readonly needs: readonly string[];
  readonly source?: (source: Source, databaseUrl: string) => Source;
  /** Of the relay. */
  readonly homeLog?: (log: HomeLog, databaseUrl: string) => HomeLog;
  /** Of everything that relays send: answers what is sent in place of a statement. */
  readonly statements?: (text: string) => string;
  /** Of the consumers. */
  readonly log?: (log: Log, databaseUrl: string) => Log;
  /** In which the consumers' transactions are, those of handlers too. */
  readonly database?: (pool: pg.Pool) => pg.Pool;
}

const SABOTAGES = {
  'ack-on-receive': {
    wrong: 'the slot is acknowledged when a batch was received, not when it is durable',
    breaks: ['I5'],
    needs: ['lock-log'],
    source: ackOnReceive,
  },
  'ack-keepalive': {
    wrong: 'the slot is acknowledged up to the end of the WAL that a keepalive names, with rows still to be appended',
    breaks: ['I5', 'I1'],
    needs: ['lock-log', 'relay-kill'],
    source: ackKeepalive,
  },
  'cursor-by-id': {
    wrong: 'the outbox is polled behind the highest id that was seen',
    breaks: ['I1'],
    needs: ['relay-kill'],
    source: cursorById,
  },
  'poll-by-xid': {
    wrong: 'the outbox is polled in the order of transaction ids',
    breaks: ['I4'],
    needs: ['relay-kill'],
    source: pollByXid,
  },
  'no-fence': {
    wrong: 'appends do not ask whether the lease is still theirs',
    breaks: ['I6'],
    needs: ['relay-freeze-append'],
    homeLog: noFence,
  },
  'dedupe-by-lsn': {
    wrong: 'what ends where something else ended in the WAL is taken for a repetition',
    breaks: ['I1'],
    needs: ['large-transaction'],
    homeLog: dedupeByLsn,
  },
  'skip-missing-row': {
    wrong: 'a fetch steps over rows that are not visible yet',
    breaks: ['I1'],
    needs: ['late-visibility'],
    log: skipMissingRow,
  },
  'offset-by-sequence': {
    wrong: 'offsets come from sequences',
    breaks: ['I4'],
    needs: ['lock-log'],
    homeLog: offsetBySequence,
  },
  'no-processed-row': {
    wrong: 'nothing says in a handler’s transaction that its message is handled',
    breaks: ['I2'],
    needs: ['consumer-kill', 'backends-terminated'],
    database: noProcessedRow,
  },
  'processed-row-other-transaction': {
    wrong: 'what says that a message is handled is committed before its effect',
    breaks: ['I1'],
    needs: ['consumer-kill', 'backends-terminated'],
    database: processedRowInOtherTransaction,
  },
  'cursor-ahead': {
    wrong: 'a group’s place moves to the end of the log, over messages that are being handled',
    breaks: ['I1'],
    needs: ['consumer-kill-lagging'],
    database: cursorAhead,
  },
  'group-epoch-fence': {
    wrong: 'a handler’s transaction commits without asking whether the partition is still its member’s',
    breaks: ['I6'],
    needs: ['consumer-freeze-commit'],
    database: noGroupFence,
  },
  'retry-out-of-order': {
    wrong: 'of the parked messages of a key the last one is tried again first',
    breaks: ['I4'],
    needs: ['handler-fails'],
    database: retryOutOfOrder,
  },
  'attempts-in-memory': {
    wrong: 'attempts are forgotten with the process that makes them',
    breaks: ['I12'],
    needs: ['poison'],
    database: attemptsInMemory,
  },
  'drop-referenced-partition': {
    wrong: 'a partition of the outbox leaves whatever the log still names of it',
    breaks: ['I1'],
    needs: ['partitions-leave'],
    statements: dropReferencedPartition,
  },
} as const satisfies Readonly<Record<string, Sabotage>>;

export type SabotageName = keyof typeof SABOTAGES;

export const SABOTAGE_NAMES = Object.keys(SABOTAGES) as SabotageName[];

export function sabotageOf(name: SabotageName): Sabotage {
  return SABOTAGES[name];
}

export function sabotagedSource(source: Source, name: SabotageName | undefined, databaseUrl: string): Source {
  return (name === undefined ? undefined : sabotageOf(name).source)?.(source, databaseUrl) ?? source;
}

export function sabotagedLog(log: HomeLog, name: SabotageName | undefined, databaseUrl: string): HomeLog {
  return (name === undefined ? undefined : sabotageOf(name).homeLog)?.(log, databaseUrl) ?? log;
}

/** Lets every client of this process send other statements. Returns what ends that. */
export function sabotageStatements(name: SabotageName | undefined): () => void {
  const statements = name === undefined ? undefined : sabotageOf(name).statements;
  return statements === undefined ? () => undefined : rewriteStatements(statements);
}

export function sabotagedReading(log: Log, name: SabotageName | undefined, databaseUrl: string): Log {
  return (name === undefined ? undefined : sabotageOf(name).log)?.(log, databaseUrl) ?? log;
}

export function sabotagedDatabase(pool: pg.Pool, name: SabotageName | undefined): pg.Pool {
  return (name === undefined ? undefined : sabotageOf(name).database)?.(pool) ?? pool;
}
