import { formatCount, formatSeconds } from './format.ts';
import type { RateLine } from './measures.ts';

/** Something that happened to the run, for the chart. */
export interface Mark {
  /** In Unix milliseconds. */
  readonly atMs: number;
  readonly label: string;
}

const LEVELS = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'] as const;

/**
 * A line of rates over time for each of the given, and below them what happened when. All are to one scale, that of the first
 * line: what catches up after a pause would otherwise press everything else flat.
 */
export function drawChart(
  rates: readonly RateLine[],
  marks: readonly Mark[],
  startedAtMs: number,
  durationMs: number,
): string[] {
  const pieces = rates[0]?.counts.length ?? 0;
  const pieceMs = durationMs / Math.max(1, pieces);
  const full = Math.max(1, ...(rates[0]?.counts ?? []));
  const width = Math.max(...rates.map(({ name }) => name.length));
  const columnOf = ({ atMs }: Mark): number => Math.floor((atMs - startedAtMs) / pieceMs);
  const visible = marks.filter((mark) => columnOf(mark) >= 0 && columnOf(mark) < pieces);
  return [
    `orders a second, over ${formatSeconds(durationMs)} from the first commit; a full column is ${formatCount(Math.round((full / pieceMs) * 1_000))} or more`,
    ...rates.map(({ name, counts }) =>
      `${name.padEnd(width)}  ${counts.map((count) => bar(count, full)).join('')}`.trimEnd(),
    ),
    `${' '.repeat(width)}  ${markLine(visible.map(columnOf), pieces)}`,
    ...visible.map(({ label, atMs }, nth) => `${nth + 1}  ${formatSeconds(atMs - startedAtMs).padStart(7)}  ${label}`),
  ];
}

/** Nothing at all is a blank. */
function bar(count: number, full: number): string {
  if (count <= 0) return ' ';
  return LEVELS[Math.min(LEVELS.length, Math.ceil((count / full) * LEVELS.length)) - 1] ?? ' ';
}

/** Numbers the columns; where two fall on one, the later stands in the next free one. */
function markLine(columns: readonly number[], width: number): string {
  const line = new Array<string>(width).fill(' ');
  columns.forEach((column, nth) => {
    let at = column;
    while (at < width - 1 && line[at] !== ' ') at += 1;
    line[at] = String(nth + 1);
  });
  return line.join('').trimEnd();
}
