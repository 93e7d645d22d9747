"use strict";
// A program of Node's that shares a queue with others: node partner.js graphile-worker (the name of the package, of which
// 0.18 has another). It brings the schema up to date, as Node's programs do, and tells {"ready": true}. Each line of its
// input is {"call": number, "verb": name, "words": [...]}, which it answers by {"call": number, "value": what came of
// it}, or by "error". Of each job that it runs it tells {"ran": the job} when its handler begins; of its runner
// {"stopping": true} when it begins to stop, and {"ended": the error's text, or null}. It ends with its input.
//
// What a handler does is said by its payload: of an object, `fail` is a text to fail with, and with `wait` it first waits
// until the verb `release` is called. Of an array, each entry is done or fails by itself.

const { createInterface } = require("node:readline");
const { setTimeout } = require("node:timers/promises");
const { pathToFileURL } = require("node:url");
const { main, options, tell } = require("./common.js");

const entryOf = (entry) => (entry?.fail ? Promise.reject(new Error(entry.fail)) : Promise.resolve());

main(async () => {
  const { run, runOnce, makeWorkerUtils } = await import(pathToFileURL(require.resolve(process.argv[2])));
  const given = options({ max: 20 });
  const utils = await makeWorkerUtils(given);
  await utils.migrate();

  const held = [];
  let begun = 0;
  let runner = null;
  let runnersHolders = new Set();

  const handle = async (payload, { job, getQueueName }, holders) => {
    begun += 1;
    holders.add(job.locked_by);
    const queue = job.job_queue_id === null ? null : await getQueueName();
    tell({ ran: { ...job, payload, queue } });
    if (Array.isArray(payload)) return payload.map(entryOf);
    if (payload?.wait) await new Promise((resolve) => held.push(resolve));
    if (payload?.fail) throw new Error(payload.fail);
  };
  const span = async (payload, { job }, holders) => {
    begun += 1;
    holders.add(job.locked_by);
    await given.pgPool.query(
      "insert into spans (job_id, queue_id, worker, began) values ($1, $2, 'node', clock_timestamp())",
      [job.id, job.job_queue_id],
    );
    await setTimeout(payload.seconds * 1000);
    await given.pgPool.query(
      "update spans set ended = clock_timestamp() where job_id = $1 and worker = 'node' and ended is null",
      [job.id],
    );
  };
  const taskList = (tasks, holders) => {
    const handlerOf = (task) => (payload, helpers) => (task === "span" ? span : handle)(payload, helpers, holders);
    return Object.fromEntries(tasks.map((task) => [task, handlerOf(task)]));
  };
  // Neither runOnce nor a runner's stop waits until the ends of its last jobs are written.
  const settled = async (holders) => {
    for (;;) {
      const { rows } = await given.pgPool.query(
        `select from graphile_worker._private_jobs where locked_by = any($1)
         union all select from graphile_worker._private_job_queues where locked_by = any($1)`,
        [[...holders]],
      );
      if (rows.length === 0) return;
      await setTimeout(5);
    }
  };

  const verbs = {
    async add(task, payload, { runAt, ...spec }) {
      return await utils.addJob(task, payload, runAt ? { ...spec, runAt: new Date(runAt) } : spec);
    },
    async addMany(task, payload, queueNames) {
      await utils.addJobs(queueNames.map((queueName) => ({ identifier: task, payload, queueName })));
    },
    // A job of a queue that is still locked is left, so it is called again until it finds nothing.
    async work(tasks, more) {
      const holders = new Set();
      do {
        begun = 0;
        await runOnce({ ...given, ...more, taskList: taskList(tasks, holders), noHandleSignals: true });
        await settled(holders);
      } while (begun > 0);
    },
    async run(tasks, more) {
      const shared = { ...given, pollInterval: 20, noHandleSignals: true, ...more };
      runnersHolders = new Set();
      runner = await run({ ...shared, taskList: taskList(tasks, runnersHolders) });
      runner.events.once("pool:gracefulShutdown", () => tell({ stopping: true }));
      runner.promise.then(
        () => tell({ ended: null }),
        (error) => tell({ ended: error.message }),
      );
    },
    async stop() {
      const one = runner;
      runner = null;
      await one.stop();
      await settled(runnersHolders);
    },
    async release() {
      held.splice(0).forEach((resolve) => resolve());
    },
    async utils(verb, ...words) {
      return await utils[verb](...words);
    },
    async removeJob(key) {
      return await utils.withPgClient((client) => client.query("select graphile_worker.remove_job($1)", [key]));
    },
  };

  tell({ ready: true });
  for await (const line of createInterface({ input: process.stdin })) {
    const { call, verb, words } = JSON.parse(line);
    verbs[verb](...words).then(
      (value) => tell({ call, value: value ?? null }),
      (error) => tell({ call, error: error.message }),
    );
  }
  if (runner !== null) await runner.stop().catch(() => {});
  await utils.release();
  await given.pgPool.end();
});
