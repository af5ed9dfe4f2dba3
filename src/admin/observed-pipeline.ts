import { messageOf } from '../base/errors.ts';
import { errorCodeOf } from '../postgres/sqlstate.ts';
import type { RelayState, RelayStatus } from '../relay/relay.ts';
import type { Figures, PipelineError, PipelineReport, Readiness } from './contract.ts';

/** What was read of a pipeline last. */
export interface FiguresReading {
  readonly figures: Figures | undefined;
  /** Since the figures were read, in milliseconds. */
  readonly ageMs: number;
  /** What the last attempt to read them failed with. */
  readonly error: unknown;
}

/** A pipeline, as it is watched. */
export interface ObservedPipeline {
  readonly name: string;
  status(): RelayStatus;
  figures(): FiguresReading;
}

const WORKING: ReadonlySet<RelayState> = new Set(['leading', 'standby']);

/** Ready is who leads or stands by, in every pipeline. */
export function readinessOf(pipelines: readonly ObservedPipeline[]): Readiness {
  const reports = pipelines.map((pipeline) => {
    const { state, error } = pipeline.status();
    const reason = error === undefined ? waitingReason(state, pipeline.figures().error) : messageOf(error);
    return { name: pipeline.name, state, ...(!WORKING.has(state) && { reason }) };
  });
  return { isReady: reports.every(({ state }) => WORKING.has(state)), pipelines: reports };
}

/** While the relay tries to reach its database, who reads the figures knows why it cannot. */
function waitingReason(state: RelayState, error: unknown): string {
  return error === undefined ? `it is ${state}` : `it is ${state}; the database cannot be read: ${messageOf(error)}`;
}

function errorOf(error: unknown, since: Date | undefined): PipelineError {
  const known = { code: errorCodeOf(error) ?? 'FAILED', message: messageOf(error) };
  return since === undefined ? known : { ...known, since: since.toISOString() };
}

/** A pipeline as `/status` shows it. */
export function reportOf(pipeline: ObservedPipeline): PipelineReport {
  const { state, source, wantedMode, appended, batches, deadLettered, error, errorSince } = pipeline.status();
  const { figures, ageMs, error: figuresError } = pipeline.figures();
  return {
    name: pipeline.name,
    state,
    ...source,
    ...(wantedMode !== undefined && { wantedMode }),
    appended,
    batches,
    deadLettered,
    ...(error !== undefined && { error: errorOf(error, errorSince) }),
    ...(figures !== undefined && { figures, figuresAgeSeconds: ageMs / 1_000 }),
    ...(figuresError !== undefined && { figuresError: messageOf(figuresError) }),
  };
}
