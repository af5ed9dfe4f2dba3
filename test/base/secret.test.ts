import { inspect } from 'node:util';
import { expect, it } from 'vitest';
import { passwordsIn, redactor, Secret } from '../../src/base/secret.ts';

it('a secret prints as [redacted]', () => {
  const secret = new Secret('hush');
  const printed = [`${secret}`, secret + '', JSON.stringify({ secret }), inspect({ secret }, { showHidden: true })]; // eslint-disable-line @typescript-eslint/restrict-template-expressions, @typescript-eslint/restrict-plus-operands
  for (const text of printed) {
    expect(text).toContain('[redacted]');
    expect(text).not.toContain('hush');
  }
  expect(secret.reveal()).toBe('hush');
});

it('a redactor takes secrets out as they are, in JSON and in URLs', () => {
  const redact = redactor(['pass"word/1', 'short']);
  expect(redact(`a pass"word/1 b`)).toBe('a [redacted] b');
  expect(redact(JSON.stringify({ a: 'pass"word/1' }))).toBe('{"a":"[redacted]"}');
  expect(redact(`x?p=${encodeURIComponent('pass"word/1')}`)).toBe('x?p=[redacted]');
  expect(redact('a short postgresql://me:any@host/db')).toBe('a short postgresql://me:[redacted]@host/db');
});

it('finds the passwords of a URL', () => {
  expect(passwordsIn('postgresql://u:a%40b@h/d?password=c')).toEqual(['a%40b', 'a@b', 'c']);
  expect(passwordsIn('postgresql://u@h/d')).toEqual([]);
  expect(passwordsIn('nothing')).toEqual([]);
});
