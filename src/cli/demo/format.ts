/** 12345 as `12,345`. */
export function formatCount(count: number): string {
  return count.toLocaleString('en-US');
}

/** Milliseconds, with a fraction where it matters: `0.84 ms`, `8.4 ms`, `840 ms`, `8,400 ms`. */
export function formatMs(ms: number): string {
  const digits = ms < 1 ? 2 : ms < 10 ? 1 : 0;
  return `${ms.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits })} ms`;
}

/** Milliseconds as seconds: `8.4 s`. */
export function formatSeconds(ms: number): string {
  return `${(ms / 1_000).toFixed(1)} s`;
}
