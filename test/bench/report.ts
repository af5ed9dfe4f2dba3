/** One figure of a run. */
export interface Row {
  readonly suite: string;
  readonly workload: string;
  readonly figure: string;
  readonly unit: string;
  /** The median of the samples. */
  readonly value: number;
  /** The lowest and the highest of them. */
  readonly spread: readonly [number, number];
  /** What it must reach: at least for a ratio, at most for the others. Without one it is only told. */
  readonly bar?: { readonly atLeast: number } | { readonly atMost: number };
  readonly ok: boolean;
  readonly samples: readonly number[];
  /** What the samples were made from, and what else was measured on the way. */
  readonly details: Readonly<Record<string, unknown>>;
}

export function median(samples: readonly number[]): number {
  return quantile(samples, 0.5);
}

/** The nearest-rank quantile; NaN of nothing. */
export function quantile(samples: readonly number[], q: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(q * sorted.length) - 1))] ?? NaN;
}

export function row(fields: Omit<Row, 'value' | 'spread' | 'ok'>): Row {
  const value = median(fields.samples);
  const { bar } = fields;
  const ok = bar === undefined || ('atLeast' in bar ? value >= bar.atLeast : value <= bar.atMost);
  const spread = [Math.min(...fields.samples), Math.max(...fields.samples)] as const;
  return { ...fields, value, spread, ok };
}

export function describe({
  suite,
  workload,
  figure,
  unit,
  value,
  spread: [lowest, highest],
  bar,
  ok,
  samples,
}: Row): string {
  const digits = (number: number): string => number.toFixed(number < 10 ? 2 : 0);
  const wanted = describeBar(bar);
  const spread = `${digits(lowest)}–${digits(highest)} in ${samples.length} samples`;
  return `${ok ? 'ok  ' : 'FAIL'} ${suite}: ${figure} ${digits(value)} ${unit} (${wanted}; ${spread}) — ${workload}`;
}

function describeBar(bar: Row['bar']): string {
  if (bar === undefined) return 'no bar';
  return 'atLeast' in bar ? `at least ${bar.atLeast}` : `at most ${bar.atMost}`;
}
