import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type JsonFault, MAX_DEPTH, faultIn, formatPath, stringify } from '../../src/message/json.ts';

/** The text, or the fault as `found at path`. */
function write(value: unknown): { text: string } | { fault: string } {
  const text = stringify(value);
  const fault = typeof text === 'string' ? faultIn(value, text) : text;
  return fault === undefined ? { text: text as string } : { fault: say(fault) };
}

function say({ found, path }: JsonFault): string {
  return `${found} at ${formatPath('payload', path)}`;
}

function nested(depth: number): unknown {
  let value: unknown = [];
  for (let level = 1; level < depth; level++) value = [value];
  return value;
}

function circular(): unknown {
  const value: Record<string, unknown> = { name: 'a' };
  value['parts'] = [{ whole: value }];
  return value;
}

class Money {
  readonly amount: unknown;
  constructor(amount: unknown) {
    this.amount = amount;
  }
  add(): void {
    // a method is no property of the instance
  }
}

class Itself {
  readonly a = 1;
  toJSON(): this {
    return this;
  }
}

const shared = { a: 1 };

describe('what JSON can carry', () => {
  it.each<[string, unknown, string]>([
    ['null', null, 'null'],
    ['a string', 'a', '"a"'],
    ['an empty object', {}, '{}'],
    ['an undefined property, which counts as absent', { a: undefined, b: 1 }, '{"b":1}'],
    ['a Date', { at: new Date(0) }, '{"at":"1970-01-01T00:00:00.000Z"}'],
    ['an instance of a class', new Money(5), '{"amount":5}'],
    ['an inherited function', Object.create({ sum: () => 1 }) as object, '{}'],
    ['an object without a prototype', Object.assign(Object.create(null) as object, { a: 1 }), '{"a":1}'],
    ['what toJSON returns', { toJSON: () => ({ a: [1] }) }, '{"a":[1]}'],
    ['an object whose toJSON returns itself', new Itself(), '{"a":1}'],
    ['boxed values', [new Number(1), new String('a'), new Boolean(false)], '[1,"a",false]'],
    ['one object in two places', [shared, shared], '[{"a":1},{"a":1}]'],
    ['an own property named __proto__', JSON.parse('{"__proto__":{"a":1}}'), '{"__proto__":{"a":1}}'],
    ['surrogate pairs', '\u{1f980}', '"\u{1f980}"'],
    ['other control characters', '\u0001\u001f', '"\\u0001\\u001f"'],
    ['backslashes before what looks like an escape', ['\\u0000', '\\\\ud800'], '["\\\\u0000","\\\\\\\\ud800"]'],
  ])('%s', (_, value, text) => {
    expect(write(value)).toEqual({ text });
  });

  it('takes nesting up to the limit', () => {
    expect(write(nested(MAX_DEPTH))).toHaveProperty('text');
    expect(write(nested(MAX_DEPTH + 1))).toHaveProperty('fault');
  });
});

describe('what JSON loses or Postgres refuses', () => {
  it.each<[string, unknown]>([
    ['undefined at payload', undefined],
    ['a function at payload', () => 1],
    ['a symbol at payload', Symbol('s')],
    ['a bigint (write it as a string) at payload', 1n],
    ['NaN at payload', NaN],
    ['Infinity at payload.a', { a: Infinity }],
    ['-Infinity at payload[1]', [0, -Infinity]],
    ['undefined at payload.list[1]', { list: [1, undefined] }],
    ['undefined at payload[0]', new Array(1)],
    ['a function at payload.run', { run: () => 1 }],
    ['a symbol at payload["no identifier"]', { 'no identifier': Symbol('s') }],
    ['a bigint (write it as a string) at payload.lines[0].amount', { lines: [new Money(10n)] }],
    ['a bigint (write it as a string) at payload.a', { a: Object(1n) as object }],
    ['NaN at payload.a', { a: new Number(NaN) }],
    ['an invalid Date at payload.at', { at: new Date(NaN) }],
    ['a Map at payload.map', { map: new Map([[1, 2]]) }],
    ['a Set at payload', new Set()],
    ['a Promise at payload.later', { later: Promise.resolve(1) }],
    ['an Error at payload.error', { error: new Error('secret') }],
    ['a RegExp at payload.pattern', { pattern: /a/ }],
    ['binary data inside JSON at payload.file', { file: new Uint8Array(3) }],
    ['binary data inside JSON at payload', new ArrayBuffer(3)],
    ['a weak collection at payload', new WeakMap()],
    ['a circular reference at payload.parts[0].whole', circular()],
    ['something whose toJSON or getter throws at payload', { toJSON: () => JSON.parse('{') as unknown }],
    ['NaN at payload.a', { toJSON: () => ({ a: NaN }) }],
    ['NaN at payload[2]', [shared, { shared }, NaN]],
    ['a NUL character at payload.a', { a: 'b\0' }],
    ['a NUL character at payload[1]', ['\\', '\\\0']],
    ['a lone surrogate at payload[0].b', [{ b: '\ud800' }]],
    ['a lone surrogate at payload.b', { a: '\u{1f980}', b: '\udfff\ud800' }],
    ['a property name with a NUL character at payload.a', { a: { '\0': 1 } }],
    ['a property name with a lone surrogate at payload', { '\udead': 1 }],
    ['a lone surrogate at payload.a', { a: { toJSON: () => '\ud801' } }],
  ])('%s', (fault, value) => {
    expect(write(value)).toEqual({ fault });
  });

  it('nesting beyond the limit, and beyond what JSON.stringify can take', () => {
    const found = expect.stringMatching(/^nesting deeper than 1000 levels at payload\[0\]\[0\].* … .*\[0\]$/) as string;
    expect(write(nested(1_001))).toEqual({ fault: found });
    expect(write(nested(100_000))).toEqual({ fault: found });
  });
});

const text = fc.string({ unit: 'binary' });
const anyJson = fc.jsonValue({ stringUnit: text, maxDepth: 5 });
const anything = fc.anything({
  withBigInt: true,
  withBoxedValues: true,
  withDate: true,
  withMap: true,
  withNullPrototype: true,
  withSet: true,
  withSparseArray: true,
  withTypedArray: true,
  values: [text, fc.double(), fc.boolean(), fc.constantFrom(null, undefined, Symbol('s'), () => 1), fc.date()],
  key: text,
});

/** Whether `read` is all there was to `written`, by a rule of its own: what JSON brought back, beside what went in. */
function arrived(written: unknown, read: unknown): boolean {
  if (written instanceof Date) return !Number.isNaN(written.getTime()) && read === written.toISOString();
  if (written instanceof Number || written instanceof String || written instanceof Boolean) {
    return arrived(written.valueOf(), read);
  }
  if (Array.isArray(written)) {
    return Array.isArray(read) && read.length === written.length && read.every((item, n) => arrived(written[n], item));
  }
  if (typeof written === 'object' && written !== null) {
    const prototype: unknown = Object.getPrototypeOf(written);
    if (typeof read !== 'object' || read === null) return false;
    if (prototype !== null && prototype !== Object.prototype) return false;
    const names = Object.keys(written).filter((name) => (written as Record<string, unknown>)[name] !== undefined);
    const readNames = new Set(Object.keys(read));
    return (
      names.length === readNames.size &&
      names.every(
        (name) =>
          readNames.has(name) &&
          arrived((written as Record<string, unknown>)[name], (read as Record<string, unknown>)[name]),
      )
    );
  }
  return Object.is(written, read) || (written === 0 && read === 0);
}

function isStorable(json: string): boolean {
  let storable = true;
  JSON.parse(json, function (name, value: unknown) {
    for (const part of [name, value]) {
      if (typeof part === 'string' && (part.includes('\0') || !part.isWellFormed())) storable = false;
    }
    return value;
  });
  return storable;
}

describe('any value', () => {
  it('arrives whole, or is refused for a reason', () => {
    fc.assert(
      fc.property(anything, (value) => {
        const written = write(value);
        const json = JSON.stringify(value, (_, part: unknown) => (typeof part === 'bigint' ? undefined : part)) as
          string | undefined;
        const isWhole = json !== undefined && arrived(value, JSON.parse(json)) && isStorable(json);
        expect('text' in written).toBe(isWhole);
        if (isWhole) expect(written).toEqual({ text: json });
      }),
      { numRuns: 2_000 },
    );
  });

  it('of JSON without NUL characters and lone surrogates is taken', () => {
    fc.assert(
      fc.property(anyJson, (value) => {
        const json = JSON.stringify(value);
        expect('text' in write(value)).toBe(isStorable(json));
      }),
      { numRuns: 1_000 },
    );
  });
});

describe('formatPath', () => {
  it('writes a path as code does', () => {
    expect(formatPath('payload', ['lines', 2, 'unit price', 'a"b', '__proto__'])).toBe(
      'payload.lines[2]["unit price"]["a\\"b"].__proto__',
    );
  });

  it('cuts a long one in the middle', () => {
    const path = formatPath('payload', Array<string>(500).fill('step'));
    expect(path).toMatch(/^payload\.step\.step.* … .*step$/);
    expect(path.length).toBeLessThan(210);
  });
});
