import type { RelayState } from '../relay/relay.ts';

/** What the database says of a pipeline. Read every few seconds, never for a request. */
export interface Figures {
  /** Committed messages that are not in the log. Not counted further than a million. */
  readonly lagMessages: number;
  /** How long ago the oldest of them was published; 0 if there is none. */
  readonly lagSeconds: number;
  /** The WAL that the replication slot holds back; `undefined` if there is no slot. */
  readonly slotRetainedBytes: number | undefined;
  /** How far each group is behind in each partition that it reads. */
  readonly groups: readonly GroupLag[];
  /** Messages set aside, for each group. */
  readonly parked: readonly ParkedCount[];
  /** What waits by key and by time, for each group that has such. */
  readonly waiting: readonly WaitingCount[];
  /** Messages that the relay could not route: its dead letters. */
  readonly relayDeadLetters: number;
}

/** How far a group is behind in a partition. */
export interface GroupLag {
  readonly group: string;
  readonly topic: string;
  readonly partition: number;
  /** Messages in the log that the group has not handled, as far as it has stored that. */
  readonly messages: number;
  /** How long ago the oldest of them was appended; 0 if there is none. */
  readonly seconds: number;
  /**
   * How long until retention removes records that the group has not handled, if nothing changes: by its topic's time, or by
   * its size at the pace of late. 0 or less: it has begun to. Absent where the topic sets no limit, and for a group that
   * is at the end.
   */
  readonly secondsToLoss?: number;
}

/** Messages that a group has set aside: for good, or waiting. */
export interface ParkedCount {
  readonly group: string;
  readonly isDead: boolean;
  readonly count: number;
}

/** What of a group waits without its doing. A million rows are looked at, at most. */
export interface WaitingCount {
  readonly group: string;
  /** Keys of which a record is set aside so that later ones line up behind it. */
  readonly parkedKeys: number;
  /** Messages that wait for their time: of a retry, or of their delivery. */
  readonly timers: number;
}

/** A pipeline in the answer of `/status`. */
export interface PipelineReport {
  readonly name: string;
  readonly state: RelayState;
  /** How its source reads, while it leads; and why not from the WAL, where it could not. */
  readonly mode?: 'wal' | 'polling';
  readonly reason?: string;
  /** The mode that an operator asked for, while it leads. */
  readonly wantedMode?: 'wal' | 'polling';
  readonly appended: number;
  readonly batches: number;
  /** Messages that this process could not route. */
  readonly deadLettered: number;
  /** What the last attempt failed with: while it cannot reach its server, too. */
  readonly error?: PipelineError;
  readonly figures?: Figures;
  /** How old the figures are. */
  readonly figuresAgeSeconds?: number;
  /** Why there are no new figures. */
  readonly figuresError?: string;
}

/** Why a pipeline does not work. */
export interface PipelineError {
  /** Of `docs/errors.md`, a SQLSTATE, or a code of the system such as `ECONNREFUSED`; `FAILED` where there is none. */
  readonly code: string;
  readonly message: string;
  /** When the first attempt failed since all was well, in ISO 8601. */
  readonly since?: string;
}

/** The answer of `/status`. */
export interface StatusReport {
  readonly isReady: boolean;
  readonly pipelines: readonly PipelineReport[];
}

/** The answer of `/readyz`. */
export interface Readiness {
  readonly isReady: boolean;
  readonly pipelines: readonly {
    readonly name: string;
    readonly state: RelayState;
    /** Why it is not ready. */
    readonly reason?: string;
  }[];
}
