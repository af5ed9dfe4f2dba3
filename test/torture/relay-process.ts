import { postgresLog } from '../../src/broker/postgres/index.ts';
import { createRelay, pollingSource, walSource, type Source } from '../../src/relay/index.ts';
import { messageOf, isTailraceError } from '../../src/base/errors.ts';
import { keepYoungGenerationSmall } from '../../src/cli/young-generation.ts';
import { FailPoints } from './fail-points.ts';
import { History, historyLogger } from './history.ts';
import { linkToParent, stopRequested, work } from './parent-link.ts';
import { countRefusals } from './refusals.ts';
import { sabotagedLog, sabotagedSource, sabotageStatements, type SabotageName } from './sabotage/sabotage.ts';
import { watchedLog, watchedSource } from './watched-ports.ts';
import { watchStatements } from './watched-statements.ts';

/** What a relay is told. */
export interface RelaySettings {
  readonly name: string;
  readonly databaseUrl: string;
  readonly historyPath: string;
  readonly mode: 'wal' | 'polling';
  readonly leaseMs: number;
  readonly sabotage: SabotageName | undefined;
}

/** The relay has halted; what with. */
export interface HaltMessage {
  readonly halted: string;
}

/** So many messages were met again and left out. */
export interface RefusedMessage {
  readonly refused: number;
}

const TELL_MS = 50;
/** Partitions of the outbox leave as soon as they are full. */
const MAINTENANCE = { intervalMs: 1_000, keepOutboxMs: 0 };

keepYoungGenerationSmall(); // as the command does
const parent = linkToParent<RelaySettings>();
await work(() => relay(parent.settings));

/** Relays until it is told to stop. A relay that halts says so, and ends. */
async function relay({ name, databaseUrl, historyPath, mode, leaseMs, sabotage }: RelaySettings): Promise<void> {
  const history = new History(historyPath, name);
  const points = new FailPoints(history);
  parent.onMessage((message) => points.onMessage(message));
  watchStatements(points);
  const takeRefusals = countRefusals();
  setInterval(() => {
    const refused = takeRefusals();
    if (refused > 0) parent.send({ refused } satisfies RefusedMessage);
  }, TELL_MS).unref();
  const logger = historyLogger(history);
  const connection = { connectionString: databaseUrl, logger };
  sabotageStatements(sabotage);
  const source: Source = mode === 'wal' ? walSource(connection) : pollingSource(connection);
  const log = postgresLog({ ...connection, maintenance: MAINTENANCE });
  const relaying = createRelay({
    source: watchedSource(sabotagedSource(source, sabotage, databaseUrl), points),
    log: watchedLog(sabotagedLog(log, sabotage, databaseUrl), points, history),
    holder: name,
    leaseMs,
    logger,
    onHalt: (error) => {
      const halted = isTailraceError(error) ? error.code : messageOf(error);
      history.write('halt', 'info', { halted, error: messageOf(error) });
      parent.send({ halted } satisfies HaltMessage);
    },
  });
  history.write('start', 'info', { mode, pid: process.pid });
  relaying.start().catch(() => undefined); // told by onHalt
  parent.ready();
  await stopRequested(parent.stopping);
  await relaying.stop().catch(() => undefined); // told by onHalt
  await log.close();
  history.write('stop', 'info');
}
