import type { TortureCluster } from './cluster.ts';
import type { Random } from './random.ts';
import type { Stage } from './stage.ts';

/** One way of breaking things. */
export interface Fault {
  readonly name: string;
  /** What is done, for the table of the README and for the progress. */
  readonly what: string;
  /** Drawn in every run, whatever the seed. */
  readonly always?: boolean;
  /** Left out of runs that do not name it and are not the full suite: it takes long. */
  readonly slow?: boolean;
  /** Drawn for every second seed only. */
  readonly bySeed?: boolean;
  /** Makes a fresh cluster ready for it, before anything is in it. */
  readonly prepare?: (cluster: TortureCluster) => Promise<void>;
  /** The server's data has to be on a small disk of its own. */
  readonly wantsDisk?: boolean;
  /** The consumers' handlers write to a database on a server of its own. */
  readonly wantsHandlersServer?: boolean;
  /** Why it cannot be injected here: then the report says so, and it is not drawn. `undefined` if it can. */
  readonly missing?: (stage: Stage) => Promise<string | undefined>;
  /**
   * Injects it once and takes its cause away again. Resolves at the moment from which on things have to recover, with
   * whether its effect was seen, or with how to see that once they have.
   */
  readonly inject: (stage: Stage, random: Random) => Promise<boolean | (() => Promise<boolean>)>;
}
