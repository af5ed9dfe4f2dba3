import eslint from '@eslint/js';
import { defineConfig, globalIgnores } from 'eslint/config';
import tseslint from 'typescript-eslint';

const processBan =
  'src is a library: it has no process of its own. Take what you need as an option, and read the process in src/cli, src/daemon or a test.';
const consoleBan =
  'A library does not print. Take a Logger as an option (src/base/logger.ts), and print in src/cli, examples or a test.';

const exportAll = {
  selector: 'ExportAllDeclaration',
  message: 'export * publishes whatever is added later. Name each export: the list is the contract.',
};
const moduleState = {
  selector: ':matches(Program, Program > ExportNamedDeclaration) > VariableDeclaration[kind!="const"]',
  message: 'A module has no state: two users of it would share it. Keep it in an object that somebody makes and owns.',
};
const switchedOff = {
  selector: 'MemberExpression[object.name=/^(it|test|describe)$/][property.name=/^(only|skip|todo)$/]',
  message: 'A test that is switched off shows nothing. Mend it or delete it; where it cannot run, say why with skipIf.',
};
const fixedFolder = {
  selector: 'Literal[value=/^\\u002f(var\\u002f)?tmp\\b/]',
  message:
    'Two checkouts may be tested at once, and each run looks for what it left. Make a folder: mkdtemp(join(tmpdir(), …)).',
};
const fixedPort = {
  selector: 'CallExpression[callee.property.name="listen"] > Literal.arguments:first-child[value>0]',
  message: 'Two checkouts may be tested at once. Listen on port 0, and ask the server which one it got.',
};
const jsImport = {
  regex: '^\\.{1,2}/.*\\.[cm]?js$',
  message: 'Node runs the sources as they are. Relative imports end in .ts; the build rewrites them.',
};

/** Bans `export *`, imports that only a bundler finds, and whatever else is given. */
const bans = ({ globals = [], modules = [], syntax = [] }) => ({
  'no-restricted-globals': ['error', ...globals],
  'no-restricted-imports': ['error', { paths: modules, patterns: [jsImport] }],
  'no-restricted-syntax': ['error', exportAll, ...syntax],
});

const PROCESS = { name: 'process', message: processBan };
const CONSOLE = { name: 'console', message: consoleBan };
const modulesOf = ({ name, message }) => [name, `node:${name}`].map((module) => ({ name: module, message }));

export default defineConfig(
  globalIgnores(['dist/', 'coverage/']),
  { linterOptions: { reportUnusedDisableDirectives: 'error' } },
  {
    files: ['**/*.{js,ts,tsx}'],
    extends: [eslint.configs.recommended, tseslint.configs.strictTypeChecked],
    languageOptions: {
      parserOptions: {
        projectService: true,
        tsconfigRootDir: import.meta.dirname,
      },
    },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error', // a floating promise loses messages
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/no-unnecessary-condition': [
        'error',
        { allowConstantLoopConditions: 'only-allowed-literals' },
      ],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      // An async method turns what it throws into a rejection, awaiting or not: what a port promises.
      '@typescript-eslint/require-await': 'off',
    },
  },
  { files: ['**/*.js'], extends: [tseslint.configs.disableTypeChecked] },
  {
    files: ['src/**'],
    rules: bans({
      globals: [PROCESS, CONSOLE],
      modules: [...modulesOf(PROCESS), ...modulesOf(CONSOLE)],
      syntax: [moduleState],
    }),
  },
  {
    files: ['src/daemon/**'],
    rules: bans({ globals: [CONSOLE], modules: modulesOf(CONSOLE), syntax: [moduleState] }),
  },
  // An empty list would leave the former one in force.
  { files: ['src/cli/**'], rules: { ...bans({ syntax: [moduleState] }), 'no-restricted-globals': 'off' } },
  { files: ['examples/**', '*.config.*'], rules: bans({}) },
  {
    files: ['test/**'],
    rules: {
      ...bans({ syntax: [switchedOff, fixedFolder, fixedPort] }),
      // Rows and matchers are untyped; a wrong shape fails the test itself.
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/no-unsafe-argument': 'off',
      '@typescript-eslint/no-non-null-assertion': 'off',
    },
  },
);
