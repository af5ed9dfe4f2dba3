import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { FAULTS } from './faults/all.ts';
import { planOf } from './nemesis.ts';
import { requestOf } from './options.ts';
import { Random } from './random.ts';
import { SABOTAGE_NAMES, sabotageOf } from './sabotage/sabotage.ts';

const namesOf = (args: readonly string[]): string[] => {
  const request = requestOf(args, 1);
  return 'run' in request ? request.run.faults.map(({ name }) => name) : [];
};

it('draws the same plan from the same seed, with the faults of every run first', () => {
  const plan = (seed: number): string[] => planOf(FAULTS, new Random(seed, 'plan')).map(({ name }) => name);
  expect(plan(7)).toEqual(plan(7));
  expect(plan(7)).not.toEqual(plan(8));
  expect(plan(7).toSorted()).toEqual(FAULTS.map(({ name }) => name).toSorted());
  const always = FAULTS.filter((fault) => fault.always === true).map(({ name }) => name);
  expect(plan(7).slice(0, always.length).toSorted()).toEqual(always.toSorted());
});

it('gives a sabotage what it needs before all, and again after each other fault', () => {
  const faults = FAULTS.filter(({ name }) => ['consumer-kill', 'relay-kill', 'poison'].includes(name));
  const plan = planOf(faults, new Random(7, 'plan'), ['poison']).map(({ name }) => name);
  expect(plan).toHaveLength(5);
  expect(plan.filter((name) => name === 'poison')).toHaveLength(3);
  expect([plan[0], plan[2], plan[4]]).toEqual(['poison', 'poison', 'poison']);
});

it('gives each fault a name of its own', () => {
  expect(new Set(FAULTS.map(({ name }) => name)).size).toBe(FAULTS.length);
});

it('leaves slow faults to the full suite and to those who name them', () => {
  const slow = FAULTS.filter((fault) => fault.slow === true).map(({ name }) => name);
  expect(slow.filter((name) => namesOf([]).includes(name))).toEqual([]);
  expect(namesOf(['--suite', 'full'])).toEqual(FAULTS.map(({ name }) => name));
  expect(namesOf(['--faults', slow[0]!])).toEqual([slow[0]]);
});

it.each(SABOTAGE_NAMES)('gives the sabotage %s the faults that it needs', (name) => {
  expect(namesOf(['--sabotage', name, '--faults', 'relay-kill'])).toEqual(
    expect.arrayContaining([...sabotageOf(name).needs]),
  );
});

it.each([
  [['--seed', 'x'], '--seed is x'],
  [['--faults', 'rain'], 'There is no fault rain'],
  [['--sabotage', 'rain'], '--sabotage is rain'],
  [['--postgres', '9'], '--postgres is 9'],
  [['--rain'], 'Unknown option'],
])('says what is wrong with %j', (args, mistake) => {
  expect(requestOf(args, 1)).toEqual({ mistake: expect.stringContaining(mistake) });
});

it('has a README that names every fault and every sabotage', async () => {
  const text = await readFile(new URL('README.md', import.meta.url), 'utf8');
  const names = [...FAULTS.map(({ name }) => name), ...SABOTAGE_NAMES];
  expect(names.filter((name) => !text.includes(`| \`${name}\` `))).toEqual([]);
});
