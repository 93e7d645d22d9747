// Runs no-op jobs with graphile-worker: a local queue of 500, completions and failures in batches, 24 at once (more are slower).
// Called as `node node_worker.mjs DSN JOBS`; prints how many seconds it took from the
// first job's begin until the table was empty.
import pg from "pg";
import { Logger, run } from "graphile-worker";

const [dsn, wanted] = process.argv.slice(2);
const pool = new pg.Pool({ connectionString: dsn, max: 12 });
await pool.query("select 1");
let count = 0;
let allStarted;
const started = new Promise((resolve) => (allStarted = resolve));
let begin;
const runner = await run({
  pgPool: pool,
  logger: new Logger(() => () => {}),
  noHandleSignals: true,
  taskList: {
    noop: () => {
      begin ??= process.hrtime.bigint();
      count += 1;
      if (count >= Number(wanted)) allStarted();
    },
  },
  preset: {
    worker: {
      concurrentJobs: 24,
      pollInterval: 2000,
      completeJobBatchDelay: 0,
      failJobBatchDelay: 0,
      localQueue: { size: 500 },
    },
  },
});
await started;
for (;;) {
  const { rows } = await pool.query("select 1 from graphile_worker._private_jobs limit 1");
  if (rows.length === 0) break;
  await new Promise((resolve) => setTimeout(resolve, 2));
}
const seconds = Number(process.hrtime.bigint() - begin) / 1e9;
await runner.stop();
await pool.end();
console.log(JSON.stringify({ seconds }));
