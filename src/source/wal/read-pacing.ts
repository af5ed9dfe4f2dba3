/**
 * When to let bytes gather before reading again. The server's walsender flushes after every message, so a reader that is
 * fast enough wakes up for every one of them, and so does the sender. Where reads are small and bytes come fast, a pause of
 * a millisecond halves the work on both sides. Where they come slowly, a pause would only add latency, so there is none.
 */
export interface ReadPacing {
  /** Tells of a read of `bytes` at `nowMs`; answers whether to pause before the next one. */
  onRead(bytes: number, nowMs: number): boolean;
}

/** How long a pause lasts. */
export const READ_PAUSE_MS = 1;

/** A larger read shows that bytes gather by themselves. */
const SMALL_READ_BYTES = 32 * 1024;
const WINDOW_MS = 10;
/** So many bytes in a window are about four messages in a millisecond. */
const FAST_BYTES_IN_WINDOW = 8 * 1024;

export function adaptiveReadPacing(): ReadPacing {
  let windowStartMs = 0;
  let bytesInWindow = 0;
  let fast = false;
  return {
    onRead(bytes, nowMs) {
      if (nowMs - windowStartMs >= WINDOW_MS) {
        fast = bytesInWindow >= FAST_BYTES_IN_WINDOW && nowMs - windowStartMs < 2 * WINDOW_MS;
        windowStartMs = nowMs;
        bytesInWindow = 0;
      }
      bytesInWindow += bytes;
      return bytes < SMALL_READ_BYTES && (fast || bytesInWindow >= FAST_BYTES_IN_WINDOW);
    },
  };
}
