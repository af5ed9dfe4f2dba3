import { describe, expect, it } from 'vitest';
import type { MissingRow } from '../../../src/broker/postgres/fetch-rows.ts';
import { MissingRows } from '../../../src/broker/postgres/missing-rows.ts';

function seen(xmin: bigint, xmax: bigint, offset = 5n): MissingRow {
  return { topic: 'orders', partition: 0, offset, id: '9', snapshot: { xmin, xmax } };
}

describe('MissingRows', () => {
  it('calls a row gone once all transactions of the first look have ended, and not before', () => {
    const rows = new MissingRows();
    expect(rows.isGone(seen(90n, 100n), 0)).toBe(false);
    expect(rows.isGone(seen(90n, 120n), 1)).toBe(false);
    expect(rows.isGone(seen(99n, 130n), 2)).toBe(false);
    expect(rows.isGone(seen(100n, 140n), 3)).toBe(true);
  });

  it('needs two looks, even if nothing was running at the first', () => {
    const rows = new MissingRows();
    expect(rows.isGone(seen(100n, 100n), 0)).toBe(false);
    expect(rows.isGone(seen(100n, 100n), 1)).toBe(true);
  });

  it('keeps places apart', () => {
    const rows = new MissingRows();
    expect(rows.isGone(seen(100n, 100n, 5n), 0)).toBe(false);
    expect(rows.isGone(seen(100n, 100n, 6n), 0)).toBe(false);
  });

  it('forgets places that nobody asked about for ten minutes', () => {
    const rows = new MissingRows();
    rows.isGone(seen(90n, 100n, 5n), 0);
    rows.isGone(seen(90n, 200n, 6n), 600_001);
    expect(rows.isGone(seen(150n, 300n, 5n), 600_002)).toBe(false); // seen anew: 300 counts now
    expect(rows.isGone(seen(299n, 400n, 5n), 600_003)).toBe(false);
    expect(rows.isGone(seen(300n, 400n, 5n), 600_004)).toBe(true);
  });
});
