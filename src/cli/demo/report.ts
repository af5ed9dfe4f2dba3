import { drawChart, type Mark } from './chart.ts';
import { formatCount, formatMs } from './format.ts';
import type { Latency, Measures } from './measures.ts';
import { holds, type Account, type Findings } from './read-back.ts';

/** Everything about a run that its reports tell. */
export interface Run {
  readonly findings: Findings;
  readonly measures: Measures;
  /** What was killed with SIGKILL. */
  readonly kills: readonly string[];
  /** The modes that the relay said it read in, in order. */
  readonly modes: readonly string[];
  readonly marks: readonly Mark[];
}

/** The run as one JSON document. The four sins are summed over the log and the consumers. */
export function jsonReport({ findings, measures, kills, modes }: Run): string {
  const { committed, rolledBack, log, consumers } = findings;
  const sum = (sin: 'lost' | 'invented' | 'doubled' | 'reordered'): number =>
    [log, ...consumers].reduce((total, account) => total + account[sin], 0);
  return `${JSON.stringify({
    committed,
    rolledBack,
    appended: log.handled,
    handled: Object.fromEntries(consumers.map(({ name, handled }) => [name, handled])),
    lost: sum('lost'),
    invented: sum('invented'),
    doubled: sum('doubled'),
    reordered: sum('reordered'),
    messagesPerSecond: measures.messagesPerSecond,
    latencyMs: measures.latencyMs,
    kills: kills.length,
    modes,
  })}\n`;
}

/** The run for people. */
export function textReport(run: Run): string {
  const { findings, measures } = run;
  const paragraphs = [
    truthParagraph(findings),
    accountTable(findings),
    speedParagraph(run),
    drawChart(measures.rates, run.marks, measures.startedAtMs, measures.durationMs),
  ];
  const indented = paragraphs.map((lines) => lines.map((line) => `  ${line}`.trimEnd()).join('\n'));
  return `\n${[...indented, verdict(findings)].join('\n\n')}\n`;
}

function truthParagraph({ committed, rolledBack, rolledBackToSavepoint }: Findings): string[] {
  return [
    'What the tables say',
    '',
    `${formatCount(committed)} orders were committed, each with its event.`,
    `${formatCount(rolledBack)} attempts published an event and were rolled back, ${formatCount(rolledBackToSavepoint)} of them to a savepoint.`,
  ];
}

const COLUMNS = ['handled', 'lost', 'invented', 'doubled', 'reordered'] as const;

function accountTable({ log, consumers }: Findings): string[] {
  const accounts = [log, ...consumers];
  const nameWidth = Math.max(...accounts.map(({ name }) => name.length));
  const row = (name: string, cells: readonly string[]): string =>
    [name.padEnd(nameWidth), ...cells.map((cell) => cell.padStart(11))].join('');
  const cellsOf = (account: Account): string[] => COLUMNS.map((column) => formatCount(account[column]));
  return [row('', COLUMNS), ...accounts.map((account) => row(account.name, cellsOf(account)))];
}

function speedParagraph({ measures, kills, modes }: Run): string[] {
  return [
    `${formatCount(measures.messagesPerSecond)} messages a second, each to both consumers, from the first commit to the last effect`,
    `commit to handler: ${formatLatency(measures.latencyMs)}, with the kills and what waited for a takeover`,
    `                   ${formatLatency(measures.steadyLatencyMs)}, before the first kill`,
    `killed with SIGKILL: ${kills.join(', ')}; the relay read: ${modes.join(', then ')}`,
  ];
}

function formatLatency({ p50, p99 }: Latency): string {
  return `p50 ${formatMs(p50)}, p99 ${formatMs(p99)}`;
}

function verdict(findings: Findings): string {
  if (holds(findings))
    return 'Every committed order was handled once by each consumer, in order, and nothing else was.';
  return `This does not hold: ${complaints(findings).join('; ')}.`;
}

function complaints({ committed, log, consumers, wrongInView, isTruthSound }: Findings): string[] {
  const found = [log, ...consumers].flatMap((account) => [
    ...COLUMNS.filter((column) => column !== 'handled' && account[column] > 0).map(
      (column) => `${formatCount(account[column])} ${column} (${account.name})`,
    ),
    ...(account.handled === committed
      ? []
      : [`${formatCount(account.handled)} of ${formatCount(committed)} rows (${account.name})`]),
  ]);
  if (wrongInView > 0) found.push(`${formatCount(wrongInView)} customers with wrong totals in the view`);
  if (!isTruthSound)
    found.push('what the writers noted does not agree with the orders, so nothing above can be trusted');
  return found;
}
