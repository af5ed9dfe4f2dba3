import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const NUMBER = '(?:[-+]?(?:\\d+\\.?\\d*|\\.\\d+)(?:e[-+]?\\d+)?|[-+]?Inf|NaN)';
const LABELS = '\\{(?:[a-zA-Z_]\\w*="(?:[^"\\\\\\n]|\\\\[\\\\"n])*",?)*\\}';

/** Reads Prometheus' text format; throws at the first line that is not in it. Samples by name and labels. */
export function parseExposition(body: string): Map<string, number> {
  const samples = new Map<string, number>();
  const types = new Map<string, string>();
  if (!body.endsWith('\n')) throw new Error('The last line has no end.');
  for (const line of body.split('\n').filter((one) => one !== '')) {
    const type = /^# TYPE ([a-zA-Z_:][\w:]*) (counter|gauge|histogram|summary|untyped)$/.exec(line);
    if (type !== null) {
      if (types.has(type[1]!)) throw new Error(`A second type: ${line}`);
      types.set(type[1]!, type[2]!);
    } else if (!/^# HELP [a-zA-Z_:][\w:]* \S/.test(line)) {
      const sample = new RegExp(`^(([a-zA-Z_:][\\w:]*)(?:${LABELS})?) (${NUMBER})$`, 'i').exec(line);
      if (sample === null) throw new Error(`Not a sample: ${line}`);
      const [, series = '', name = '', value = ''] = sample;
      if (!types.has(name) && !types.has(name.replace(/_(sum|count|bucket)$/, ''))) throw new Error(`No type: ${line}`);
      if (types.get(name) === 'counter' && !name.endsWith('_total'))
        throw new Error(`A counter without _total: ${line}`);
      if (samples.has(series)) throw new Error(`Twice: ${line}`);
      samples.set(series, Number(value.replace('Inf', 'Infinity')));
    }
  }
  return samples;
}

/** What `promtool check metrics` finds wrong, nothing if all is well; `undefined` where it cannot be had. */
export async function promtoolFindings(body: string): Promise<string | undefined> {
  const promtool = await findPromtool();
  if (promtool === undefined) return undefined;
  const child = spawn(promtool, ['check', 'metrics'], { stdio: ['pipe', 'pipe', 'pipe'] });
  child.stdin.end(body);
  const [said, erred] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'exit')]);
  return said + erred;
}

const CACHE = fileURLToPath(new URL('../../node_modules/.cache/promtool', import.meta.url));

/** On the PATH, or out of Debian's package, which is unpacked and not installed: its server must not start. */
async function findPromtool(): Promise<string | undefined> {
  const unpacked = join(CACHE, 'usr/bin/promtool');
  for (const path of ['/usr/bin/promtool', unpacked]) if (await exists(path)) return path;
  try {
    await mkdir(dirname(CACHE), { recursive: true });
    const folder = await mkdtemp(`${CACHE}-`); // test files run side by side: each sees all of it, or nothing
    await run('apt-get', ['download', 'prometheus'], { cwd: folder, timeout: 30_000 });
    const [archive = ''] = (await readdir(folder)).filter((name) => name.endsWith('.deb'));
    await run('dpkg-deb', ['-x', join(folder, archive), folder]);
    await rename(folder, CACHE).catch(() => rm(folder, { recursive: true })); // another one was faster
    return unpacked;
  } catch {
    return undefined; // no Debian, or no network
  }
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
