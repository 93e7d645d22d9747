"use strict";
// Node's worker, until no job is due: node work.js '{"tasks": ["greet"], "forbiddenFlags": ["slow"]}'; tells of each job
// what its handler was given. A payload of {"fail": "why"} makes the handler fail.
// runOnce does not wait until a job's end is written before it looks for the next one, so it may leave jobs of a queue
// that is still locked: it is called again until it finds nothing.

const { runOnce } = require("graphile-worker");
const { main, options, tell } = require("./common.js");

main(async () => {
  const given = options();
  const { tasks, forbiddenFlags } = JSON.parse(process.argv[2]);
  let ran;
  const handle = async (payload, { job, getQueueName }) => {
    ran += 1;
    if (payload.fail) throw new Error(payload.fail);
    const queue = job.job_queue_id === null ? null : await getQueueName();
    tell({ ...job, payload, queue });
  };
  const taskList = Object.fromEntries(tasks.map((task) => [task, handle]));
  do {
    ran = 0;
    await runOnce({ ...given, taskList, forbiddenFlags, noHandleSignals: true });
  } while (ran > 0);
  await given.pgPool.end();
});
