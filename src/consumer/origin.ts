import { TailraceError } from '../base/errors.ts';
import { isSameCluster, type Cluster } from '../base/cluster.ts';

/** Where what a member has in memory comes from. Offsets and epochs mean something only there. */
export interface Origin {
  /** Of the handlers' database. */
  readonly database: Cluster;
  /** Of the log, as the log itself says: another object after each change. */
  readonly log: Cluster | undefined;
}

export function isSameOrigin(one: Origin, other: Origin): boolean {
  return isSameCluster(one.database, other.database) && one.log === other.log;
}

/** Whether the log is in the handlers' database, or was to be on another server; `undefined`: it does not say. */
export function isShared({ database, log }: Origin): boolean | undefined {
  return log === undefined ? undefined : log.systemIdentifier === database.systemIdentifier;
}

/**
 * Whether records of this log may be handled in this database. Where both are one cluster, they have to be on one
 * timeline too: a connection to a server that was replaced may live longer than another one.
 */
export function fits({ database, log }: Origin, shared: boolean | undefined): boolean {
  return log === undefined || shared === false || isSameCluster(database, log);
}

/** The error for a log, or a database, that is on another cluster or timeline than the one on which partitions were taken. */
export function elsewhere(): TailraceError {
  return new TailraceError(
    'WRONG_CLUSTER',
    'The log or the database is on another cluster or timeline by now: a standby was promoted, or a backup was restored. What is in memory is given up, and the group goes on from the places stored there, once log and database are on the same.',
    { retryable: true },
  );
}
