import type { LocalServer } from '../../src/postgres/local-server.ts';
import type { Row } from './report.ts';

/** What every workload is given. */
export interface Bench {
  readonly server: LocalServer;
  /** Where pg_recvlogical is. */
  readonly toolsDir: string;
  /** How often each workload is measured. */
  readonly rounds: number;
  readonly isQuick: boolean;
  /** Progress, for people. */
  readonly say: (text: string) => void;
}

/** Workloads of one suite, by the name that selects one: `--suite relay/single`. Each gives one row or more. */
export type Suite = Readonly<Record<string, (bench: Bench) => Promise<Row[]>>>;

/** A size for the whole bench, and one for `--quick`. */
export function size<T>({ isQuick }: Pick<Bench, 'isQuick'>, full: T, quick: T): T {
  return isQuick ? quick : full;
}
