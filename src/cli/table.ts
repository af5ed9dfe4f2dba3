/** Lines of a table for people: a head, and columns as wide as they must be. Numbers stand at the right. */
export function formatTable(
  head: readonly string[],
  rows: readonly (readonly (string | number | bigint | null)[])[],
): string {
  const cells = [head, ...rows.map((row) => row.map((cell) => (cell === null ? '-' : String(cell))))];
  const widths = head.map((_, column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)));
  const isNumeric = head.map((_, column) =>
    rows.some((row) => typeof row[column] === 'number' || typeof row[column] === 'bigint'),
  );
  return cells
    .map((row) =>
      row.map((cell, n) => (isNumeric[n] === true ? cell.padStart(widths[n] ?? 0) : cell.padEnd(widths[n] ?? 0))),
    )
    .map((row) => `${row.join('  ').trimEnd()}\n`)
    .join('');
}
