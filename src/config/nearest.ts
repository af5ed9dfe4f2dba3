/** A word that differs by no more from a known one is taken for that one, misspelt. */
export const MISTAKE_DISTANCE = 2;

/** The one of `known` that differs least from `word`; `undefined` if nothing is known. Upper and lower case are the same. */
export function nearest(word: string, known: readonly string[]): { word: string; distance: number } | undefined {
  return known
    .map((other) => ({ word: other, distance: editDistance(word.toLowerCase(), other.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance)[0];
}

/** The fewest letters to insert, delete or replace to make one word of the other (Levenshtein). */
export function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let line = 1; line <= a.length; line++) {
    const above = row;
    row = [line];
    for (let column = 1; column <= b.length; column++) {
      const replaced = (above[column - 1] ?? 0) + (a[line - 1] === b[column - 1] ? 0 : 1);
      row.push(Math.min((above[column] ?? 0) + 1, (row[column - 1] ?? 0) + 1, replaced));
    }
  }
  return row[b.length] ?? 0;
}
