import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { promisify } from 'node:util';
import { messageOf } from '../../src/base/errors.ts';
import { findProgram } from '../servers/find-server.ts';

const run = promisify(execFile);

/** Where packets are dropped, as seen by who sits at the near end. */
export type Cut = 'both ways' | 'on the way out' | 'on the way in';

/** For documentation only (RFC 5737), and here inside of two namespaces that nobody else sees. */
const NEAR_ADDRESS = '192.0.2.1';
const FAR_ADDRESS = '192.0.2.2';
const DEVICE = 'cable';
const NAME = 'tailrace-torture';

/** The programs that it takes. */
interface Tools {
  readonly ip: string;
  readonly iptables: string;
}

/** Two network namespaces of the run's own with a cable between them, on which packets can be dropped. Linux, as root. */
export class Cable implements AsyncDisposable {
  readonly near: string;
  readonly far: string;
  /** Of the far end, as the near end calls it. */
  readonly farAddress = FAR_ADDRESS;
  /** Starts a program in a namespace: to be followed by its name, the program and its arguments. */
  readonly enter: readonly string[];
  readonly #tools: Tools;
  #janitor: ChildProcess | undefined;

  private constructor(tools: Tools) {
    this.#tools = tools;
    this.near = `${NAME}-${process.pid}-near`;
    this.far = `${NAME}-${process.pid}-far`;
    this.enter = [tools.ip, 'netns', 'exec'];
  }

  /** Why there can be none here; `undefined` if there can. */
  static async missing(): Promise<string | undefined> {
    try {
      await using cable = await Cable.lay();
      await cable.cut('both ways');
      return undefined;
    } catch (error) {
      return messageOf(error);
    }
  }

  /** One at a time. */
  static async lay(): Promise<Cable> {
    const cable = new Cable(await findTools());
    await removeLeftovers(cable.#tools.ip);
    try {
      await cable.#lay();
      return cable;
    } catch (error) {
      await cable[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** From now on packets are dropped where they arrive, and nobody is told. */
  async cut(how: Cut): Promise<void> {
    if (how !== 'on the way in') await this.#drop(this.far);
    if (how !== 'on the way out') await this.#drop(this.near);
  }

  /** How many packets were dropped since it was cut. */
  async dropped(): Promise<number> {
    const counts = await Promise.all([this.near, this.far].map((name) => this.#droppedIn(name)));
    return counts.reduce((sum, count) => sum + count, 0);
  }

  async mend(): Promise<void> {
    for (const name of [this.near, this.far]) await this.#iptables(name, '--flush', 'INPUT');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of [this.near, this.far])
      await run(this.#tools.ip, ['netns', 'delete', name]).catch(() => undefined);
    this.#janitor?.kill('SIGKILL');
  }

  async #lay(): Promise<void> {
    const { ip } = this.#tools;
    this.#janitor = spawn('/bin/sh', ['-c', JANITOR, ip, this.near, this.far], {
      detached: true,
      cwd: '/',
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    this.#janitor.unref();
    await run(ip, ['netns', 'add', this.near]);
    await run(ip, ['netns', 'add', this.far]);
    await run(ip, ['-n', this.near, 'link', 'add', DEVICE, 'type', 'veth', 'peer', 'name', DEVICE, 'netns', this.far]);
    for (const [name, address] of [
      [this.near, NEAR_ADDRESS],
      [this.far, FAR_ADDRESS],
    ] as const) {
      await run(ip, ['-n', name, 'address', 'add', `${address}/30`, 'dev', DEVICE]);
      await run(ip, ['-n', name, 'link', 'set', DEVICE, 'up']);
      await run(ip, ['-n', name, 'link', 'set', 'lo', 'up']);
    }
  }

  async #drop(name: string): Promise<void> {
    await this.#iptables(name, '--append', 'INPUT', '--in-interface', DEVICE, '--jump', 'DROP');
  }

  async #droppedIn(name: string): Promise<number> {
    const text = await this.#iptables(name, '--list', 'INPUT', '--numeric', '--verbose', '--exact');
    return [...text.matchAll(/^\s*(\d+)\s+\d+\s+DROP\b/gm)].reduce((sum, [, packets]) => sum + Number(packets), 0);
  }

  async #iptables(name: string, ...args: readonly string[]): Promise<string> {
    const { ip, iptables } = this.#tools;
    const { stdout } = await run(ip, ['netns', 'exec', name, iptables, '--wait', '30', ...args]);
    return stdout;
  }
}

/** If the run is killed, its end of the pipe closes. */
const JANITOR = 'read -r _; for name in "$@"; do "$0" netns delete "$name" 2>/dev/null; done';

async function findTools(): Promise<Tools> {
  if (process.platform !== 'linux' || process.getuid?.() !== 0)
    throw new Error('a network namespace takes root on Linux');
  const ip = await findProgram({ program: 'ip', debianPackage: 'iproute2', folders: ['/usr/sbin', '/sbin'] });
  if ('failure' in ip) throw new Error(ip.failure);
  const iptables = await findProgram({
    program: 'iptables',
    debianPackage: 'iptables',
    folders: ['/usr/sbin', '/sbin'],
  });
  if ('failure' in iptables) throw new Error(iptables.failure);
  return { ip: ip.path, iptables: iptables.path };
}

/** Of runs that have ended without having been able to clean up: not even their janitor was left. */
async function removeLeftovers(ip: string): Promise<void> {
  const { stdout } = await run(ip, ['netns', 'list']);
  for (const [name, pid] of stdout.matchAll(new RegExp(`^${NAME}-(\\d+)-\\w+`, 'gm'))) {
    if (!isRunning(Number(pid))) await run(ip, ['netns', 'delete', name]).catch(() => undefined);
  }
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}
