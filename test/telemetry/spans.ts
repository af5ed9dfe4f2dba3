import { context, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  SimpleSpanProcessor,
  type ReadableSpan,
  type Sampler,
} from '@opentelemetry/sdk-trace-base';
import { expect } from 'vitest';

/** An SDK for this process, until the end of the scope. */
export class Sdk implements Disposable {
  readonly #exporter = new InMemorySpanExporter();

  constructor(sampler?: Sampler) {
    const spanProcessors = [new SimpleSpanProcessor(this.#exporter)];
    trace.setGlobalTracerProvider(
      new BasicTracerProvider({ spanProcessors, ...(sampler !== undefined && { sampler }) }),
    );
    context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  }

  /** Runs `work` in a span of the application's; returns the trace's id. */
  async inTrace(name: string, work: () => Promise<unknown>): Promise<string> {
    return trace.getTracer('application').startActiveSpan(name, async (span) => {
      try {
        await work();
        return span.spanContext().traceId;
      } finally {
        span.end();
      }
    });
  }

  /** The spans that have ended. */
  get spans(): ReadableSpan[] {
    return this.#exporter.getFinishedSpans();
  }

  /** The only span of that name, once it has ended. */
  async span(name: string): Promise<ReadableSpan> {
    const [span] = await this.all(name, 1);
    if (span === undefined) throw new Error(`There is no span ${name}.`);
    return span;
  }

  /** All spans of that name, once so many have ended. */
  async all(name: string, count: number): Promise<ReadableSpan[]> {
    const found = (): ReadableSpan[] => this.spans.filter((span) => span.name === name);
    await expect.poll(() => found().length, { timeout: 60_000, message: name }).toBe(count);
    return found();
  }

  [Symbol.dispose](): void {
    trace.disable();
    context.disable();
  }
}
