import { isTailraceError } from '../../src/base/errors.ts';
import type { HomeLog, LogWriter } from '../../src/broker/log.ts';
import type { Source, SourceReader } from '../../src/relay/index.ts';
import type { FailPoints } from './fail-points.ts';
import type { History } from './history.ts';
import { overriding } from './overriding.ts';

/** The points at which a relay can be made to die or to stand still. */
export const RELAY_POINTS = [
  'acquire.after',
  'open.before',
  'open.after',
  'next.before',
  'next.after',
  'partitions.before',
  'append.before',
  'append.sent',
  'append.after',
  'checkpoint.before',
  'checkpoint.sent',
  'checkpoint.after',
  'durable.before',
  'durable.after',
] as const;

/** The same source, with points around everything that the relay asks of it. */
export function watchedSource(source: Source, points: FailPoints): Source {
  return {
    async open(resume, signal, mode) {
      points.reach('open.before');
      const reader = await source.open(resume, signal, mode);
      points.reach('open.after');
      return watchedReader(reader, points);
    },
  };
}

function watchedReader(reader: SourceReader, points: FailPoints): SourceReader {
  return overriding(reader, {
    async next(signal) {
      points.reach('next.before');
      const batch = await reader.next(signal);
      points.reach('next.after');
      return batch;
    },
    durable() {
      points.reach('durable.before');
      reader.durable();
      points.reach('durable.after');
    },
  });
}

/** The same log, with points around everything that the relay asks of it, and a line in the history for every append. */
export function watchedLog(log: HomeLog, points: FailPoints, history: History): HomeLog {
  return overriding(log, {
    async acquireWriter(options) {
      const writer = await log.acquireWriter(options);
      history.write('acquire', 'ok', { holder: options.holder });
      points.reach('acquire.after');
      return watchedWriter(writer, points, history, options.holder);
    },
  });
}

function watchedWriter(writer: LogWriter, points: FailPoints, history: History, holder: string): LogWriter {
  return overriding(writer, {
    partitionCounts(topic) {
      points.reach('partitions.before');
      return writer.partitionCounts(topic);
    },
    async append(batch) {
      const kind = batch.checkpoint === undefined ? 'append' : 'checkpoint';
      points.reach(`${kind}.before`);
      // Nothing lies between this look and the writer's own: what is trusted here goes to the server.
      const trusted = !writer.signal.aborted;
      const wallMs = Date.now();
      const messages = batch.appends.reduce((sum, { ids }) => sum + ids.length, 0);
      const appending = writer.append(batch);
      setImmediate(() => points.reach(`${kind}.sent`));
      try {
        await appending;
      } catch (error) {
        const code = isTailraceError(error) ? error.code : 'other';
        history.write('append', code === 'LEASE_LOST' ? 'fail' : 'info', { holder, messages, trusted, wallMs, code });
        throw error;
      }
      history.write('append', 'ok', { holder, messages });
      points.reach(`${kind}.after`);
    },
  });
}
