import { execFile } from 'node:child_process';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { freePort } from '../../src/postgres/server-settings.ts';
import { findServer, urlInEnvironment } from './find-server.ts';
import { type RunningServer, givenServer, launch, startOwnServer } from './test-server.ts';

const run = promisify(execFile);

const VARIABLE = 'TAILRACE_TEST_KAFKA_URL';

/**
 * One Kafka node in KRaft mode, broker and controller in one: the one in `TAILRACE_TEST_KAFKA_URL` (a bootstrap server,
 * `host:port`), or one of its own, run from what Maven fetches.
 */
export async function startKafka(): Promise<RunningServer> {
  const url = urlInEnvironment(VARIABLE);
  if (url !== undefined) return givenServer(url);
  const java = await programPath('java', 'openjdk-17-jre-headless');
  const classPath = await fetchedClassPath();
  return startOwnServer(async (folder) => {
    const [port, controllerPort] = await Promise.all([freePort(), freePort()]);
    const settings = join(folder, 'server.properties');
    await writeFile(settings, formatSettings(folder, port, controllerPort));
    const options = ['-Xmx512m', '-XX:-UsePerfData', `-Djava.io.tmpdir=${folder}`, '-cp', classPath];
    const format = ['kafka.tools.StorageTool', 'format', '--cluster-id', CLUSTER_ID, '--config', settings];
    await run(java, [...options, ...format]);
    const kafka = await launch({
      program: java,
      args: [...options, 'kafka.Kafka', settings],
      ready: /Kafka Server started/,
    });
    return { url: `127.0.0.1:${String(port)}`, processes: [kafka] };
  });
}

/** 16 bytes in base64, without padding. */
const CLUSTER_ID = 'dGFpbHJhY2UtdGVzdC0wMQ';

function formatSettings(folder: string, port: number, controllerPort: number): string {
  const broker = `PLAINTEXT://127.0.0.1:${String(port)}`;
  const controller = `127.0.0.1:${String(controllerPort)}`;
  const settings = {
    'process.roles': 'broker,controller',
    'node.id': '1',
    'controller.quorum.voters': `1@${controller}`,
    listeners: `${broker},CONTROLLER://${controller}`,
    'advertised.listeners': broker,
    'controller.listener.names': 'CONTROLLER',
    'log.dirs': join(folder, 'data'),
    'offsets.topic.replication.factor': '1',
    'transaction.state.log.replication.factor': '1',
    'transaction.state.log.min.isr': '1',
    'group.initial.rebalance.delay.ms': '0',
  };
  return Object.entries(settings)
    .map(([name, value]) => `${name}=${value}\n`)
    .join('');
}

async function programPath(program: string, debianPackage: string): Promise<string> {
  const found = await findServer({ name: `Kafka (${program})`, variable: VARIABLE, program, debianPackage });
  if ('program' in found) return found.program;
  throw new Error(`${VARIABLE} was set while Kafka was looked for.`);
}

const POM = fileURLToPath(new URL('kafka/pom.xml', import.meta.url));
const CACHE = fileURLToPath(new URL('../../node_modules/.cache/tailrace/kafka-class-path.json', import.meta.url));

/** The jars lie in Maven's own repository; only the list of them is kept here, for as long as the pom stays as it is. */
async function fetchedClassPath(): Promise<string> {
  const pom = await readFile(POM, 'utf8');
  const cached = await readFile(CACHE, 'utf8').then(
    (text) => JSON.parse(text) as { readonly pom: string; readonly classPath: string },
    () => undefined,
  );
  if (cached?.pom === pom && (await allReadable(cached.classPath.split(':')))) return cached.classPath;
  const classPath = await fetchWithMaven();
  const draft = `${CACHE}.${String(process.pid)}`;
  await writeFile(draft, JSON.stringify({ pom, classPath }));
  await rename(draft, CACHE);
  return classPath;
}

async function allReadable(paths: readonly string[]): Promise<boolean> {
  return Promise.all(paths.map((path) => readFile(path))).then(
    () => true,
    () => false,
  );
}

async function fetchWithMaven(): Promise<string> {
  const maven = await programPath('mvn', 'maven');
  await mkdir(dirname(CACHE), { recursive: true });
  const output = `${CACHE}.${String(process.pid)}.txt`;
  const goal = ['dependency:build-classpath', '-DincludeScope=runtime', `-Dmdep.outputFile=${output}`];
  await run(maven, ['--batch-mode', '--quiet', '--file', POM, ...goal]).catch((cause: unknown) => {
    throw new Error(
      `The tests need Kafka, and Maven could not fetch it (mvn --file ${POM} dependency:build-classpath says why). ` +
        `Or set ${VARIABLE} to the host:port of a running one.`,
      { cause },
    );
  });
  return (await readFile(output, 'utf8')).trim();
}
