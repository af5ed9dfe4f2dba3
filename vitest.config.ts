import { defineConfig } from 'vitest/config';

const DATABASE_TESTS = 'test/**/*.db.test.ts';
/** What reads the WAL differs between versions; the rest of the suite runs on the newest and the oldest alone. */
const SOURCE_TESTS = 'test/source/**/*.db.test.ts';
const PACKAGE_TESTS = 'test/package/*.test.ts';

/** The database tests run on each version, with a server of its own: see test/servers/postgres-setup.ts. */
const postgresProject = (name: string, tests = DATABASE_TESTS) => ({
  test: { name, include: [tests], globalSetup: 'test/servers/postgres-setup.ts', testTimeout: 60_000 },
});

/** For tests that import the package by its name, as an application does; the condition leads to the sources. */
const BY_NAME = { resolve: { conditions: ['tailrace-source', 'module', 'node'] } };

const examplesProject = {
  ssr: BY_NAME,
  test: { name: 'examples', include: ['examples/**/*.test.ts'], testTimeout: 60_000 },
};

export default defineConfig({
  test: {
    maxWorkers: 2,
    hookTimeout: 60_000,
    teardownTimeout: 60_000,
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: [DATABASE_TESTS, PACKAGE_TESTS],
          testTimeout: 60_000,
        },
      },
      { ssr: BY_NAME, test: { name: 'package', include: [PACKAGE_TESTS], testTimeout: 90_000, hookTimeout: 90_000 } },
      examplesProject,
      postgresProject('postgres-18'),
      postgresProject('postgres-17', SOURCE_TESTS),
      postgresProject('postgres-15'),
    ],
  },
});
