import { access, readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { PRESETS } from '../../src/consumer/presets.ts';
import { blocksOf, regionsOf } from './snippets.ts';

const readme = await readFile('README.md', 'utf8');
const blocks = blocksOf(readme);
const cut = blocks.filter(({ origin }) => origin !== undefined);

describe('the README', () => {
  it('has its TypeScript from the examples, all of it', () => {
    const own = blocks.filter(({ language, origin }) => language === 'ts' && origin === undefined);
    expect(own.map(({ line }) => `line ${line}`)).toEqual([]);
    expect(cut.length).toBeGreaterThanOrEqual(10);
  });

  it.each(cut.map((block) => [block.origin ?? '', block] as const))('shows %s word for word', async (origin, block) => {
    const [path = '', region = ''] = origin.split('#');
    expect(block.text).toBe(regionsOf(await readFile(path, 'utf8')).get(region));
  });

  it('runs scripts that exist', async () => {
    const { scripts } = JSON.parse(await readFile('package.json', 'utf8')) as { scripts: Record<string, string> };
    const called = [...readme.matchAll(/npm run (\S+?)\b/g)].map(([, name = '']) => name);
    expect(called).toContain('demo');
    for (const name of called) expect(Object.keys(scripts)).toContain(name);
  });

  it('links to files that exist', async () => {
    const links = [...readme.matchAll(/\]\(([^)#:]+)\)/g)].map(([, path = '']) => path);
    expect(links).toContain('docs/errors.md');
    for (const path of links) await access(path);
  });

  it('names folders that exist', async () => {
    const folders = [...readme.matchAll(/^\|([^|]*)\|/gm)].flatMap(([, cell = '']) =>
      [...cell.matchAll(/`((?:src|migrations|examples|test)(?:\/[a-z/]+)?)`/g)].map(([, path = '']) => path),
    );
    expect(folders).toContain('src/outbox');
    for (const path of folders) await access(path);
  });
});

/** The fields of an interface, with their default values, as the source text has them. */
async function optionsOf(path: string, name: string): Promise<Map<string, string | undefined>> {
  const source = await readFile(path, 'utf8');
  const body = new RegExp(`export interface ${name}\\b[^{]*\\{\\n([^]*?)\\n\\}`).exec(source)?.[1] ?? '';
  const fields = body.matchAll(/((?:^ {2}\/\*\*(?:(?!\*\/)[^])*\*\/\n)?)^ {2}readonly (\w+)(\??):/gm);
  return new Map(
    [...fields].map(([, comment = '', field = '', optional]) => [field, defaultOf(comment, optional === '?')]),
  );
}

/** `undefined`: the comment does not say. */
function defaultOf(comment: string, isOptional: boolean): string | undefined {
  if (!isOptional) return 'required';
  const text = /@defaultValue ([^]*?)(?:\*\/|\n\s*\* @|$)/.exec(comment)?.[1];
  return text?.replace(/\n\s*\*/g, '').trim();
}

/** The rows of a table of options, by the names in its first head cell. */
function tableOf(...functions: string[]): Map<string, string> {
  const head = `| ${functions.map((name) => `\`${name}\``).join(', ')} `;
  const lines = readme.split('\n');
  const start = lines.findIndex((line) => line.startsWith(head));
  if (start < 0) throw new Error(`The README has no table of ${functions.join(', ')}.`);
  const rows = lines.slice(start + 2);
  return new Map(
    rows
      .slice(
        0,
        rows.findIndex((line) => !line.startsWith('|')),
      )
      .map((row) => row.split('|').map((cell) => cell.trim()))
      .map(([, name = '', value = '']) => [/`(\w+)`/.exec(name)?.[1] ?? name, value.replaceAll('`', '')]),
  );
}

describe('the tables of options', () => {
  it.each([
    [['createOutbox'], 'src/outbox/options.ts', ['OutboxOptions']],
    [['createProducer'], 'src/outbox/options.ts', ['ProducerOptions']],
    [['defineEvent', 'defineCommand', 'defineDocument'], 'src/message/definition.ts', ['DefinitionOptions']],
    [['createRelay'], 'src/relay/relay.ts', ['RelayOptions']],
    [['walSource', 'pollingSource'], 'src/source/polling/polling-source.ts', ['PollingOptions']],
    [['postgresLog'], 'src/broker/postgres/options.ts', ['PostgresLogOptions']],
    [['createConsumer'], 'src/consumer/options.ts', ['ConsumerOptions']],
  ])('%s has every option, and the defaults that the source tells', async (functions, path, [name = '']) => {
    const options = await optionsOf(path, name);
    const table = tableOf(...functions);
    expect(options.size).toBeGreaterThan(1);
    const only = functions[0] === 'walSource' ? ['slot'] : []; // the one option that only one of the two has
    expect([...table.keys()].sort()).toEqual([...options.keys(), ...only].sort());
    for (const [option, value] of options) {
      const isLiteral = value !== undefined && /^('\w+'|[\d_]+|true|false|required)$/.test(value);
      if (isLiteral) expect(table.get(option), option).toBe(value);
    }
  });

  it('startTestPipeline has every option', async () => {
    const own = await optionsOf('src/testing/test-pipeline.ts', 'TestPipelineOptions');
    const inherited = await optionsOf('src/testing/test-database.ts', 'TestDatabaseOptions');
    expect([...tableOf('startTestPipeline').keys()].sort()).toEqual([...own.keys(), ...inherited.keys()].sort());
  });

  it('what presets set is what they set', () => {
    const rows = [...readme.matchAll(/^\| (none|`'\w+'`) +\|([^\n]+)\|$/gm)].map(([, name = '', cells = '']) => [
      name === 'none' ? 'default' : name.slice(2, -2),
      cells.split('|').map((cell) => Number(cell.replace(/[^\d]/g, ''))),
    ]);
    const expected = Object.entries(PRESETS).map(
      ([name, { concurrency, prefetch, cursorIntervalMs, batchRecords }]) => [
        name,
        [concurrency, prefetch.records, prefetch.bytes, cursorIntervalMs, batchRecords],
      ],
    );
    expect(rows).toEqual(expected);
  });
});
