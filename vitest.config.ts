import { defineConfig } from 'vitest/config';

const DATABASE_TESTS = 'test/**/*.db.test.ts';
/** What reads the WAL differs between versions; the rest of the suite runs on the newest and the oldest alone. */
const SOURCE_TESTS = 'test/source/**/*.db.test.ts';
const PACKAGE_TESTS = 'test/package/*.test.ts';

/** Generous: a test that hangs ends with them, one on a slow and loaded machine must not. */
const PATIENCE = { testTimeout: 180_000, hookTimeout: 180_000, expect: { poll: { timeout: 60_000, interval: 20 } } };

/** The database tests run on each version, with a server of its own: see test/servers/postgres-setup.ts. */
const postgresProject = (name: string, tests = DATABASE_TESTS) => ({
  test: { name, include: [tests], globalSetup: 'test/servers/postgres-setup.ts', ...PATIENCE },
});

/** For tests that import the package by its name, as an application does; the condition leads to the sources. */
const BY_NAME = { resolve: { conditions: ['tailrace-source', 'module', 'node'] } };

const examplesProject = {
  ssr: BY_NAME,
  test: { name: 'examples', include: ['examples/**/*.test.ts'], ...PATIENCE },
};

export default defineConfig({
  test: {
    maxWorkers: 2,
    teardownTimeout: 60_000,
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: [DATABASE_TESTS, PACKAGE_TESTS],
          ...PATIENCE,
        },
      },
      { ssr: BY_NAME, test: { name: 'package', include: [PACKAGE_TESTS], ...PATIENCE } },
      examplesProject,
      postgresProject('postgres-18'),
      postgresProject('postgres-17', SOURCE_TESTS),
      postgresProject('postgres-15'),
    ],
  },
});
