"use strict";
// Node's worker, until its input ends: node record.js 4 (how many jobs at once); each job of the task `record` writes its
// begin and its end into the table `spans`. Tells "ready" once it looks for jobs.

const { run } = require("graphile-worker");
const { main, options, tell } = require("./common.js");

main(async () => {
  const given = options();
  const record = async (_payload, { job }) => {
    await given.pgPool.query(
      "insert into spans (job_id, queue_id, worker, began) values ($1, $2, 'node', clock_timestamp())",
      [job.id, job.job_queue_id],
    );
    await given.pgPool.query("select pg_sleep(0.005)");
    await given.pgPool.query("update spans set ended = clock_timestamp() where job_id = $1", [job.id]);
  };
  const concurrency = Number(process.argv[2]);
  const runner = await run({ ...given, taskList: { record }, concurrency, pollInterval: 20, noHandleSignals: true });
  tell("ready");
  process.stdin.on("end", async () => {
    await runner.stop();
    await given.pgPool.end();
  });
  process.stdin.resume();
});
