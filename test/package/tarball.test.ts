import { access, mkdir, readFile, readdir, writeFile } from 'node:fs/promises';
import { dirname, join, posix } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { ROOT, mustRun, pack, readManifest, run, runTool, temporaryFolder } from './packed.ts';

let tarball: string;
let paths: string[];
/** Of an empty project that the tarball was installed into. */
let project: string;
const stack = new AsyncDisposableStack();

beforeAll(async () => {
  const staging = stack.use(await temporaryFolder()).path;
  await mkdir(join(staging, 'dist'));
  await writeFile(join(staging, 'dist/stale.js'), '// of a source that is no more');
  tarball = await pack(staging);
  paths = await packedPaths(tarball);
  project = stack.use(await temporaryFolder()).path;
  await install(project, tarball);
}, 90_000);

afterAll(() => stack.disposeAsync());

async function packedPaths(file: string): Promise<string[]> {
  const listed = await mustRun('tar', ['-tzf', file], dirname(file));
  return listed
    .trim()
    .split('\n')
    .map((path) => path.replace(/^package\//, ''))
    .sort();
}

/** As a user does, in a project with nothing else in it; what is in npm's cache is not fetched again. */
async function install(folder: string, file: string): Promise<void> {
  const manifest = { name: 'shop', version: '1.0.0', private: true, type: 'module' };
  await writeFile(join(folder, 'package.json'), JSON.stringify(manifest));
  await mustRun('npm', ['install', '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error', file], folder);
}

/** `tailrace`, `tailrace/relay`, …: all that can be imported, from the manifest. */
async function faces(): Promise<string[]> {
  const { exports } = await readManifest();
  return Object.keys(exports)
    .filter((subpath) => subpath !== './package.json')
    .map((subpath) => posix.join('tailrace', subpath));
}

const ALLOWED = [
  /^(package\.json|README\.md|CHANGELOG\.md|LICENSE)$/,
  /^migrations\/\d{4}_[a-z_]+\.sql$/,
  /^dist\/[a-z0-9/-]+\.(js|js\.map|d\.ts|d\.ts\.map)$/,
  /^docs\/[a-z]+\.md$/,
  /^docs\/deploy\/(README\.md|Dockerfile|tailrace-relay\.service)$/,
  /^src\/[a-z0-9/-]+\.ts$/, // where the maps lead
  /^src\/[a-z0-9/-]+\/README\.md$/, // npm packs every one there is
];

it('holds what is on the list, and nothing else', () => {
  expect(paths.length).toBeGreaterThan(100);
  expect(paths.filter((path) => !ALLOWED.some((pattern) => pattern.test(path)))).toEqual([]);
  expect(paths.filter((path) => /\b(test|spec|kit|bench|torture)\.|^test\//.test(path))).toEqual([]);
  expect(paths).toEqual(
    expect.arrayContaining(['package.json', 'README.md', 'CHANGELOG.md', 'LICENSE', 'docs/errors.md']),
  );
});

it('holds every migration', async () => {
  const migrations = (await readdir(join(ROOT, 'migrations'))).map((name) => `migrations/${name}`);
  expect(paths.filter((path) => path.startsWith('migrations/'))).toEqual(migrations.sort());
});

it('holds of a source what it was built to, and the other way round', () => {
  const sources = paths.filter((path) => /^src\/.*\.ts$/.test(path));
  const built = sources
    .map((path) => path.replace(/^src\/(.*)\.ts$/, 'dist/$1'))
    .flatMap((path) => [`${path}.js`, `${path}.js.map`, `${path}.d.ts`, `${path}.d.ts.map`]);
  expect(paths.filter((path) => path.startsWith('dist/'))).toEqual(built.sort());
});

it('maps declarations and code to sources that are there', async () => {
  const home = join(project, 'node_modules/tailrace');
  const maps = paths.filter((path) => path.endsWith('.map'));
  for (const path of maps) {
    const { sources } = JSON.parse(await readFile(join(home, path), 'utf8')) as { sources: string[] };
    for (const source of sources) await access(join(home, dirname(path), source));
  }
});

it('runs nothing when it is installed', async () => {
  const text = await readFile(join(project, 'node_modules/tailrace/package.json'), 'utf8');
  const { scripts } = JSON.parse(text) as { scripts: Record<string, string> };
  expect(Object.keys(scripts)).toEqual(expect.not.arrayContaining(['preinstall', 'install', 'postinstall', 'prepare']));
});

it('is what publint expects of a package', async () => {
  const { exitCode, said } = await runTool('publint', [tarball, '--strict'], project);
  expect(said).toContain('All good!');
  expect(exitCode).toBe(0);
});

it('has types that every ESM resolver finds', async () => {
  const { exitCode, said } = await runTool('attw', [tarball, '--profile', 'esm-only', '--no-color'], project);
  for (const face of await faces()) expect(said).toContain(`"${face}"`);
  expect(said).toContain('node16 (from ESM)');
  expect(exitCode).toBe(0);
});

it('can be imported by each of its names', async () => {
  const program = `
    const counts = {};
    for (const face of process.argv.slice(1)) counts[face] = Object.keys(await import(face)).length;
    console.log(JSON.stringify(counts));
  `;
  const all = await faces();
  const said = await mustRun(process.execPath, ['--input-type=module', '--eval', program, '--', ...all], project);
  const counts = JSON.parse(said) as Record<string, number>;
  expect(Object.keys(counts)).toEqual(all);
  for (const face of all) expect(counts[face], face).toBeGreaterThan(0);
});

it('hides what is not a name of it', async () => {
  const program = `await import('tailrace/dist/index.js')`;
  const { said } = await run(process.execPath, ['--input-type=module', '--eval', program], project);
  expect(said).toContain('ERR_PACKAGE_PATH_NOT_EXPORTED');
});

it('answers on the command line', async () => {
  const said = await mustRun('npx', ['--no-install', 'tailrace', '--help'], project);
  expect(said).toMatch(/Usage: tailrace/);
  for (const command of ['migrate', 'relay', 'demo']) expect(said).toContain(command);
});

const APPLICATION = `
import { type Logger, type Outbox, createOutbox, defineEvent } from 'tailrace';
import { postgresLog } from 'tailrace/broker/postgres';
import { type Consumer, createConsumer } from 'tailrace/consumer';
import { type Relay, createRelay, walSource } from 'tailrace/relay';
import { startTestPipeline } from 'tailrace/testing';
import pg from 'pg';

interface Order { orderId: string; total: number }
const OrderPlaced = defineEvent<Order>('OrderPlaced', { topic: 'orders', key: (order) => order.orderId });
const outbox: Outbox = createOutbox();
const connectionString = 'postgresql://localhost/shop';
const log = postgresLog({ connectionString });
export const relay: Relay = createRelay({ source: walSource({ connectionString }), log });
export const billing: Consumer = createConsumer({ log, group: 'billing', database: new pg.Pool() })
  .on(OrderPlaced, async (event, { tx }) => {
    const total: number = event.payload.total;
    await tx.query('insert into invoice values ($1)', [total]);
    await outbox.publish(tx, OrderPlaced({ orderId: event.payload.orderId, total }));
  });
export const start = (logger: Logger) => startTestPipeline({ logger });

// @ts-expect-error total is missing: types that had turned into any would not say so
OrderPlaced({ orderId: 'A-1' });
// @ts-expect-error a consumer takes a pool, not a number: nor would these
createConsumer({ log, group: 'billing', database: { connect: () => Promise.resolve(1) } });
`;

const COMPILERS = [
  ['nodenext', { module: 'nodenext', moduleResolution: 'nodenext' }],
  ['bundler', { module: 'esnext', moduleResolution: 'bundler' }],
] as const;

it.each(COMPILERS)('has types that compile with %s, those of its dependencies checked too', async (name, options) => {
  const folder = join(project, name);
  await mkdir(folder);
  const all = await faces();
  const imports = all.map((face, index) => `import * as face${String(index)} from '${face}';`);
  const uses = `export const faces = [${all.map((_, index) => `face${String(index)}`).join(', ')}];`;
  await writeFile(join(folder, 'faces.ts'), [...imports, uses].join('\n'));
  await writeFile(join(folder, 'application.ts'), APPLICATION);
  const compilerOptions = {
    ...options,
    target: 'es2023',
    lib: ['es2023', 'esnext.disposable'],
    types: ['node'],
    strict: true,
    exactOptionalPropertyTypes: true,
    skipLibCheck: false,
    noEmit: true,
  };
  await writeFile(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['.'] }));
  const { exitCode, said } = await runTool('tsc', ['-p', folder], project);
  expect(said).toBe('');
  expect(exitCode).toBe(0);
});
