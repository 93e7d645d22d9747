// Runs no-op jobs with graphile-worker: a local queue of 500, completions and failures in batches, 24 at once (more are slower).
// Called as `node node_worker.mjs DSN JOBS [WARMING]`; prints how many seconds it took from the
// first job's begin until the table was empty. WARMING jobs more are there, which run before the clock starts.
import pg from "pg";
import { Logger, run } from "graphile-worker";

const [dsn, jobs, more = "0"] = process.argv.slice(2);
const warming = Number(more);
const wanted = warming + Number(jobs);
const pool = new pg.Pool({ connectionString: dsn, max: 12 });
// The newest jobs are looked at first, since a look at all reads what remains of those deleted.
const { rows: [{ newest }] } = await pool.query("select coalesce(max(id), 0) - 10000 as newest from graphile_worker._private_jobs");
const anyAbove = async (id) => {
  const { rows } = await pool.query("select 1 from graphile_worker._private_jobs where id > $1 order by id desc limit 1", [id]);
  return rows.length > 0;
};
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
      if (count === warming) begin = process.hrtime.bigint();
      count += 1;
      if (count >= wanted) allStarted();
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
let end = process.hrtime.bigint();
while ((await anyAbove(newest)) || (await anyAbove(0))) end = process.hrtime.bigint();
const seconds = Number(end - begin) / 1e9;
await runner.stop();
await pool.end();
console.log(JSON.stringify({ seconds }));
