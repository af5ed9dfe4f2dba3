/** Longer texts than this are not looked into: a delete marker is `null`, with a little white space at most. */
export const LONGEST_MARKER = 32;

/** Whether a payload makes a record with a key a delete marker of a compacted topic: the JSON value null. */
export function isDeleteMarker(payload: string | null): boolean {
  return payload !== null && payload.length <= LONGEST_MARKER && payload.trim() === 'null';
}
