import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { copyHeaders, decodeHeaders, encodeHeaders } from '../../src/message/headers.ts';

const DANGEROUS = JSON.parse('{"__proto__":"p","constructor":"c","toString":"t","hasOwnProperty":"h"}') as Record<
  string,
  string
>;

describe('headers', () => {
  it('named like members of Object.prototype survive, and the copy has no prototype', () => {
    const headers = copyHeaders('OrderPlaced', DANGEROUS);
    expect(Object.getPrototypeOf(headers)).toBeNull();
    const read = decodeHeaders(encodeHeaders(headers, 'OrderPlaced'));
    expect(Object.getPrototypeOf(read)).toBeNull();
    expect(Object.entries(read)).toEqual(Object.entries(DANGEROUS));
    expect(({} as Record<string, unknown>)['p']).toBeUndefined();
  });

  it('that are absent are an empty object without a prototype', () => {
    for (const headers of [copyHeaders('OrderPlaced', undefined), decodeHeaders('{}'), decodeHeaders('{ }')]) {
      expect(Object.keys(headers)).toEqual([]);
      expect(Object.getPrototypeOf(headers)).toBeNull();
      expect(Object.isFrozen(headers)).toBe(true);
    }
    expect(encodeHeaders({}, 'OrderPlaced')).toBe('{}');
  });

  it('of any names and values round-trip', () => {
    const text = fc.string({ unit: 'grapheme' }).filter((part) => !part.includes('\0'));
    fc.assert(
      fc.property(
        fc.dictionary(
          text.filter((name) => name !== ''),
          text,
        ),
        (headers) => {
          const read = decodeHeaders(encodeHeaders(copyHeaders('T', headers), 'T'));
          expect(Object.entries(read).sort()).toEqual(Object.entries(headers).sort());
        },
      ),
    );
  });

  it('are copied: a later change of the given object does not show', () => {
    const given = { tenant: 'a' };
    const headers = copyHeaders('OrderPlaced', given);
    given.tenant = 'b';
    expect(headers['tenant']).toBe('a');
  });
});

describe('headers that are refused', () => {
  it.each<[unknown, RegExp]>([
    [null, /headers of OrderPlaced are null/],
    [undefined, /headers of OrderPlaced are undefined/],
    [['a'], /headers of OrderPlaced are an array/],
    ['a', /headers of OrderPlaced are a string/],
    [{ '': 'a' }, /empty name/],
    [{ '\0': 'a' }, /name of a header of OrderPlaced has a NUL/],
    [{ '\ud800': 'a' }, /name of a header of OrderPlaced has a lone surrogate/],
    [{ tenant: 7 }, /header "tenant" of OrderPlaced is a number/],
    [{ tenant: undefined }, /header "tenant" of OrderPlaced is undefined/],
    [{ tenant: 'secret\0' }, /header "tenant" of OrderPlaced has a NUL/],
    [{ tenant: 'secret\ud800' }, /header "tenant" of OrderPlaced has a lone surrogate/],
  ])('%#', (headers, message) => {
    const encode = (): unknown => encodeHeaders(headers, 'OrderPlaced');
    expect(encode).toThrow(expect.objectContaining({ code: 'INVALID_HEADER' }));
    expect(encode).toThrow(message);
    expect(encode).not.toThrow(/secret/);
  });
});

describe('headers that another writer stored', () => {
  it('with values that are not strings are given as JSON text', () => {
    expect({ ...decodeHeaders('{"a":1,"b":null,"c":{"d":["é"]},"e":"f"}') }).toEqual({
      a: '1',
      b: 'null',
      c: '{"d":["é"]}',
      e: 'f',
    });
  });

  it.each(['[1,2]', '"text"', 'null', '7', 'no json'])('that are no object are kept whole: %s', (text) => {
    expect({ ...decodeHeaders(text) }).toEqual({ 'malformed-headers': text });
  });
});
