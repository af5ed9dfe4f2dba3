import { readdir } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import { type ICruiseResult, cruise } from 'dependency-cruiser';
import { floorRules, roomOf } from './floors.ts';

/** What a check saw. */
export interface FloorsReport {
  /** How many files under `src/` were read. */
  readonly files: number;
  /** One sentence or more each; none means that the floors hold. */
  readonly problems: readonly string[];
}

/** The part of dependency-cruiser's result that is used. */
export interface Cruised {
  readonly modules: readonly { readonly source: string }[];
  readonly summary: Pick<ICruiseResult['summary'], 'violations'>;
}

/**
 * Checks the imports of every file in `src/` of the repository at `root` against the floor plan. A file that was not read
 * is a problem, and so is an empty folder: a check that reads nothing finds nothing.
 */
export async function checkFloors(
  root: string,
  cruiseIn: (root: string) => Promise<Cruised> = cruiseSources,
): Promise<FloorsReport> {
  const files = await sourceFiles(root);
  if (files.length === 0)
    return { files: 0, problems: [`No TypeScript files in ${join(root, 'src')}: nothing checked.`] };
  const result = await cruiseIn(root);
  const read = new Set(result.modules.map((module) => module.source));
  const problems = [...unread(files, read), ...homeless(files), ...violations(result)];
  return { files: files.filter((file) => read.has(file)).length, problems };
}

async function sourceFiles(root: string): Promise<string[]> {
  const entries = await readdir(join(root, 'src'), { recursive: true, withFileTypes: true }).catch(() => []);
  return entries
    .filter((entry) => entry.isFile() && /\.[cm]?tsx?$/.test(entry.name))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)).split(sep).join('/'))
    .sort();
}

async function cruiseSources(root: string): Promise<Cruised> {
  const report = await cruise(['src'], {
    baseDir: root,
    validate: true,
    ruleSet: { forbidden: floorRules() },
    tsPreCompilationDeps: true, // type imports count
    doNotFollow: { path: 'node_modules' },
  });
  if (typeof report.output === 'string') throw new Error(`dependency-cruiser gave text: ${report.output}`);
  return report.output;
}

function unread(files: readonly string[], read: ReadonlySet<string>): string[] {
  return files
    .filter((file) => !read.has(file))
    .map((file) => `not read: ${file}. dependency-cruiser passed it over; does it support the installed TypeScript?`);
}

function homeless(files: readonly string[]): string[] {
  return files
    .filter((file) => roomOf(file) === undefined)
    .map((file) => `no floor: ${file}. Move it, or give its folder a floor in test/floors/floors.ts.`);
}

function violations(result: Cruised): string[] {
  const comments = new Map(floorRules().map(({ name, comment }) => [name, comment]));
  return result.summary.violations.map(({ rule, from, to, cycle }) => {
    const way = cycle === undefined ? to : cycle.map((step) => step.name).join(' → ');
    return `${rule.name}: ${from} → ${way}. ${comments.get(rule.name) ?? ''}`;
  });
}
