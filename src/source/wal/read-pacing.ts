/**
 * When to let bytes gather before reading again. The server's walsender flushes after every message, so a reader that is
 * fast enough wakes up for every one of them, and so does the sender. Where reads are small and bytes come fast, a pause of
 * a millisecond halves the work on both sides; where messages come steadily, from some hundreds a second on, one of two has
 * several of them appended, and read by consumers, at once. Where they come slowly, a pause would only add latency, so there is
 * none. A stream that is late anyway can wait longer: a pause is a tenth of how late it is, up to what the socket's buffers hold.
 */
export interface ReadPacing {
  /**
   * Tells of a read of `bytes` at `nowMs`, of a transaction that was sent `lateMs` after its commit. Answers for how many
   * milliseconds to pause before the next read; 0 for not at all.
   */
  onRead(bytes: number, nowMs: number, lateMs: number): number;
}

/** How long a pause lasts where bytes come fast, where they come steadily, and at most. */
const SHORT_PAUSE_MS = 1;
const STEADY_PAUSE_MS = 2;
const LONGEST_PAUSE_MS = 15;
/** What is late by less is paced by its rate. */
const LATE_MS = 50;
const SHARE_OF_LATENESS = 0.1;

/** Node reads at most so much at once: then there is more, and a pause would only leave it there. */
const FULL_READ_BYTES = 64 * 1024;
/** A larger read shows that bytes gather by themselves. */
const SMALL_READ_BYTES = 32 * 1024;
const WINDOW_MS = 10;
/** So many bytes in a window are about four messages in a millisecond. */
const FAST_BYTES_IN_WINDOW = 8 * 1024;
/** So many are about four in ten milliseconds. */
const STEADY_BYTES_IN_WINDOW = 1024;

export function adaptiveReadPacing(): ReadPacing {
  let windowStartMs = 0;
  let bytesInWindow = 0;
  let bytesInFormer = 0;
  let isFresh = false;
  return {
    onRead(bytes, nowMs, lateMs) {
      if (nowMs - windowStartMs >= WINDOW_MS) {
        isFresh = nowMs - windowStartMs < 2 * WINDOW_MS;
        bytesInFormer = bytesInWindow;
        windowStartMs = nowMs;
        bytesInWindow = 0;
      }
      bytesInWindow += bytes;
      if (bytes >= FULL_READ_BYTES) return 0;
      if (lateMs >= LATE_MS) return Math.min(lateMs * SHARE_OF_LATENESS, LONGEST_PAUSE_MS);
      if (bytes >= SMALL_READ_BYTES) return 0;
      const most = Math.max(bytesInWindow, isFresh ? bytesInFormer : 0);
      if (most >= FAST_BYTES_IN_WINDOW) return SHORT_PAUSE_MS;
      return most >= STEADY_BYTES_IN_WINDOW ? STEADY_PAUSE_MS : 0;
    },
  };
}
