"use strict";
// Graphile Worker 0.18, until its input ends: node newer.js '["greet"]' '["slow"]' (its tasks, and its forbidden flags).
// At its start it brings the schema up to date, as it does for users; then it tells "ready". A line of its input, such as
// ["greet", {"some": "payload"}, {"queueName": "q"}], adds a job, and it tells {"added": the row}; of each job that it
// runs it tells {"ran": the job}.

const { createInterface } = require("node:readline");
const { pathToFileURL } = require("node:url");
const { main, options, tell } = require("./common.js");

main(async () => {
  const { run } = await import(pathToFileURL(require.resolve("graphile-worker-0.18")));
  const given = options();
  const [tasks, forbiddenFlags] = process.argv.slice(2, 4).map((words) => JSON.parse(words));
  const handle = (payload, { job }) => tell({ ran: { ...job, payload } });
  const runner = await run({
    ...given,
    forbiddenFlags,
    taskList: Object.fromEntries(tasks.map((task) => [task, handle])),
    concurrency: 2,
    pollInterval: 20,
    noHandleSignals: true,
  });
  tell("ready");
  for await (const line of createInterface({ input: process.stdin })) {
    const [task, payload, spec] = JSON.parse(line);
    tell({ added: await runner.addJob(task, payload, spec) });
  }
  await runner.stop();
  await given.pgPool.end();
});
