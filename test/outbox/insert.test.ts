import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { EncodedMessage } from '../../src/message/encode.ts';
import { arrayLiteral, insertStatements } from '../../src/outbox/insert.ts';

function encoded(id: string, bytes: number): EncodedMessage {
  return {
    id,
    kind: 'event',
    type: 'T',
    topic: 't',
    key: null,
    headers: '{}',
    payload: '1',
    payloadBytes: null,
    occurredAt: '1970-01-01T00:00:00.000Z',
    expiresAt: null,
    deliverAt: null,
    delayMs: null,
    bytes,
  };
}

/** The ids in each statement. */
function idsOf(bytes: number[], statementBytes: number): unknown[] {
  const messages = bytes.map((size, index) => encoded(String(index), size));
  return insertStatements('"tailrace"', messages, false, statementBytes).map(({ values }) => values[0]);
}

describe('insertStatements', () => {
  it('makes none of nothing', () => {
    expect(idsOf([], 10)).toEqual([]);
  });

  it('makes one of one, however large', () => {
    expect(idsOf([11], 10)).toEqual(['0']);
  });

  it('fills a statement up to its limit, and keeps the order', () => {
    expect(idsOf([5, 5, 1, 9, 1, 20, 1, 1], 10)).toEqual(['{"0","1"}', '{"2","3"}', '4', '5', '{"6","7"}']);
  });

  it('never names the columns that the table fills in', () => {
    for (const messages of [[encoded('a', 1)], [encoded('a', 1), encoded('b', 1)]]) {
      const [statement] = insertStatements('"tailrace"', messages);
      expect(statement?.text).not.toMatch(/position|\btx\b/);
    }
  });
});

describe('arrayLiteral', () => {
  it('quotes, escapes, and tells null from its name', () => {
    expect(arrayLiteral(['a', null, 'NULL', '', '"', '\\', 'a,{b}'])).toBe('{"a",NULL,"NULL","","\\"","\\\\","a,{b}"}');
  });

  it('can be read back', () => {
    fc.assert(
      fc.property(fc.array(fc.option(fc.string({ unit: 'binary' }))), (values) => {
        expect(readArray(arrayLiteral(values))).toEqual(values);
      }),
    );
  });
});

/** Reads the text form of a one-dimensional array whose elements are quoted or NULL. */
function readArray(text: string): (string | null)[] {
  const elements = text.slice(1, -1).matchAll(/NULL|"((?:[^"\\]|\\[^])*)"/g);
  return Array.from(elements, ([, quoted]) => (quoted === undefined ? null : quoted.replace(/\\([^])/g, '$1')));
}
