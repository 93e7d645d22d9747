"use strict";
// A worker of Graphile Worker 0.18 whose handlers keep books, as booked.py's do: a row when an attempt begins, and its
// end in it. Called as `node booked.js SETTINGS`, a JSON object of what a worker process of the fleet's tests is told; it
// tells its worker's id, as which it locks jobs and queues. Node's own handlers of signals end it on SIGTERM.

const { randomUUID } = require("node:crypto");
const { EventEmitter } = require("node:events");
const { pathToFileURL } = require("node:url");
const { Pool } = require("pg");
const { main, options } = require("./common.js");

const BEGIN = `
  insert into attempts (token, job_id, number, attempt, worker, process, queue, began)
  values ($1, $2, $3, $4, $5, $6, (select queue_name from graphile_worker._private_job_queues where id = $7), $8)
  on conflict do nothing`;
const END = "update attempts set ended = coalesce(ended, clock_timestamp()), good = $2 where token = $1";

const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

const recorders = () => {
  const pool = new Pool({ max: 4, application_name: "books" });
  pool.on("error", () => {}); // an idle connection was ended; the pool opens another one
  return async (query, ...parameters) => {
    for (;;) {
      try {
        return await pool.query(query, parameters);
      } catch {
        await sleep(0.1); // the statements may be repeated
      }
    }
  };
};

main(async () => {
  const { run, Logger } = await import(pathToFileURL(require.resolve("graphile-worker-0.18")));
  const settings = JSON.parse(process.argv[2]);
  const { pgPool } = options({ application_name: "node worker" });
  const write = recorders();
  const events = new EventEmitter();
  let worker;
  events.on("pool:create", ({ workerPool }) => {
    worker = workerPool.id;
  });

  const work = async ({ number, seconds, fails }, { job }) => {
    // The clock tells whole milliseconds. Rounded up, the begin is never before the end that it followed.
    const began = new Date(Date.now() + 1);
    const token = randomUUID();
    const { id, attempts, job_queue_id: queue } = job;
    await write(BEGIN, token, id, number, attempts, worker, settings.process, queue, began);
    await sleep(seconds);
    const good = attempts > fails;
    await write(END, token, good);
    if (!good) throw new Error("by design");
  };

  events.on("pool:fatalError", ({ error }) => {
    // It could not write how a job ended, and stops; its own shutdown does not always come to an end.
    process.stderr.write(`${error.stack}\n`);
    process.exit(1);
  });

  const runner = await run({
    pgPool,
    events,
    logger: new Logger(() => (level, message) => process.stderr.write(`${level}: ${message}\n`)),
    taskList: Object.fromEntries(Array.from({ length: settings.tasks }, (_, number) => [`work${number}`, work])),
    preset: {
      worker: {
        concurrentJobs: settings.concurrency,
        pollInterval: settings.poll * 1000,
        ...(settings.batches && {
          localQueue: { size: 2 * settings.concurrency },
          completeJobBatchDelay: 0,
          failJobBatchDelay: 0,
        }),
      },
    },
  });
  process.stdout.write(`${worker}\n`);
  await runner.promise;
});
