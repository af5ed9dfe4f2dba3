import { expect, it } from 'vitest';
import { clientUrl, withTlsExplained } from '../../src/postgres/tls.ts';

it.each([
  ['?sslmode=require', '?sslmode=verify-full'],
  ['?sslmode=prefer&application_name=a', '?sslmode=verify-full&application_name=a'],
  ['?sslrootcert=/ca.pem&sslmode=verify-ca', '?sslrootcert=/ca.pem&sslmode=verify-full'],
])('%s is %s', (given, meant) => {
  expect(clientUrl(`postgresql://a:b@db/shop${given}`)).toBe(`postgresql://a:b@db/shop${meant}`);
});

it.each([
  '',
  '?sslmode=verify-full',
  '?sslmode=disable',
  '?sslmode=no-verify',
  '?sslmode=required',
  '?xsslmode=require',
  '?uselibpqcompat=true&sslmode=require',
  '?sslmode=verify-ca&uselibpqcompat=true',
])('%s stays what it is', (given) => {
  expect(clientUrl(`postgresql://a:b@db/shop${given}`)).toBe(`postgresql://a:b@db/shop${given}`);
});

it('tells a server without TLS from one whose certificate does not hold', () => {
  expect(withTlsExplained(new Error('The server does not support SSL connections'))).toMatchObject({
    code: 'TLS_REFUSED',
    message: expect.stringMatching(/Turn it on at the server/) as string,
  });
  const unknown = Object.assign(new Error('self-signed certificate'), { code: 'DEPTH_ZERO_SELF_SIGNED_CERT' });
  expect(withTlsExplained(unknown)).toMatchObject({
    code: 'TLS_REFUSED',
    message: expect.stringMatching(/Expected a certificate/) as string,
  });
  const other = new Error('something else');
  expect(withTlsExplained(other)).toBe(other);
});
