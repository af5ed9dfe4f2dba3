import { describe, expect, it } from 'vitest';
import { Secret } from '../../src/base/secret.ts';
import { assertGuarded, hostAllowlist, tokenCheck } from '../../src/admin/access.ts';

const token = new Secret('0123456789abcdef');
const tls = { cert: '', key: '' };

describe('an interface', () => {
  it.each([
    [{ host: '127.0.0.1' }],
    [{ host: '127.9.9.9' }],
    [{ host: '::1' }],
    [{ host: 'localhost' }],
    [{ host: '0.0.0.0', token, tls }],
    [{ host: '10.0.0.1', token, behindTlsProxy: true }],
  ])('is guarded: %j', (exposure) => {
    assertGuarded(exposure);
  });

  it.each([
    [{ host: '0.0.0.0' }, /http\.token and http\.tls/],
    [{ host: '::' }, /http\.token and http\.tls/],
    [{ host: '10.0.0.1', token }, /without http\.tls/],
    [{ host: '10.0.0.1', tls }, /without http\.token\./],
    [{ host: '10.0.0.1', behindTlsProxy: true }, /without http\.token\./],
    [{ host: '127.0.0.1.example.org' }, /others can reach/],
    [{ host: 'localhost.example.org' }, /others can reach/],
  ])('is not: %j', (exposure, message) => {
    expect(() => assertGuarded(exposure)).toThrow(message);
  });
});

it('knows the hosts it goes by', () => {
  const isAllowed = hostAllowlist('::', ['relay.example.org']);
  for (const host of ['localhost', 'LOCALHOST:80', '127.0.0.1:9', '[::1]:9', '[::]', 'relay.example.org:443']) {
    expect(isAllowed(host), host).toBe(true);
  }
  const strangers = [undefined, '', 'evil.example', 'relay.example.org.evil', 'localhost@evil', 'a localhost', 'x:1:2'];
  for (const host of strangers) expect(isAllowed(host), host).toBe(false);
});

it('knows its token', () => {
  const fits = tokenCheck(token);
  expect(fits('Bearer 0123456789abcdef')).toBe(true);
  for (const header of [
    undefined,
    '',
    'Bearer ',
    'Bearer 0123456789abcde',
    '0123456789abcdef',
    'Basic 0123456789abcdef',
  ]) {
    expect(fits(header)).toBe(false);
  }
  expect(tokenCheck(undefined)(undefined)).toBe(true);
});
