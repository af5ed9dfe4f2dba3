import { fileURLToPath } from 'node:url';
import { ESLint } from 'eslint';
import { expect, it } from 'vitest';

const eslint = new ESLint({ cwd: fileURLToPath(new URL('../../', import.meta.url)) });

/** What ESLint says of a text, were it in the place of a file that exists. */
async function complaints(filePath: string, text: string): Promise<string[]> {
  const [result] = await eslint.lintText(text, { filePath });
  return result?.messages.map(({ message }) => message) ?? ['nothing linted'];
}

const LIBRARY = 'src/base/errors.ts';
const TEST = 'test/floors/floors.ts';

it.each([
  ['process', LIBRARY, 'export const a = process.pid;', /src is a library/],
  ['node:process', LIBRARY, `import { pid } from 'node:process'; export const a = pid;`, /src is a library/],
  ['console', LIBRARY, `export const say = (): void => { console.log('a'); };`, /does not print/],
  ['module state', LIBRARY, 'let a = 1; export const next = (): number => (a += 1);', /module has no state/],
  [
    'exported module state',
    LIBRARY,
    'export let a = 1; export const b = (): void => { a = 2; };',
    /module has no state/,
  ],
  ['export all', LIBRARY, `export * from './lsn.ts';`, /Name each export/],
  ['.js imports', LIBRARY, `import { lsn } from './lsn.js'; export const a = lsn(1n);`, /end in \.ts/],
  [
    'floating promises',
    LIBRARY,
    'const a = async (): Promise<void> => {}; export const b = (): void => { a(); };',
    /Promises must be/,
  ],
  ['any', LIBRARY, 'export const a = (b: any): unknown => b;', /Unexpected any/],
  ['export all in a test', TEST, `export * from './check-floors.ts';`, /Name each export/],
  [
    'floating promises in a test',
    TEST,
    'const a = async () => {}; export const b = () => { a(); };',
    /Promises must be/,
  ],
  ['tests switched off', TEST, `import { it } from 'vitest'; it.skip('a', () => {});`, /switched off/],
  [
    'folders that two runs would share',
    TEST,
    `import { mkdir } from 'node:fs/promises'; export const a = () => mkdir('/tmp/tailrace');`,
    /Two checkouts/,
  ],
  [
    'ports that two runs would share',
    TEST,
    `import { createServer } from 'node:net'; export const a = () => createServer().listen(5432, '127.0.0.1');`,
    /Two checkouts/,
  ],
])('bans %s', async (_what, file, text, message) => {
  expect(await complaints(file, text)).toContainEqual(expect.stringMatching(message));
});

it('allows a test to print and to read the process', async () => {
  expect(await complaints(TEST, 'export const a = () => { console.log(process.pid); };')).toEqual([]);
});
